import copy
import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from pipeline import load
from pipeline.fused.passes import EAGER_PASSES
from pipeline.hunyuan_custom import HunyuanCustomPipeline
from pipeline.load import load_pipeline
from pipeline.options import Fused
from pipeline.vae import passes as vae_passes
from pipeline.vae.network import layers_on
from weights.errors import VerifyError

WEIGHTS = "transformer/diffusion_pytorch_model.safetensors"
# Not bit for bit: some CPUs' kernels add up in an order that depends on where in memory a weight begins.
LOADED = ("latents, saved and loaded again", 2e-4)
SMALL: dict[str, Any] = {"height": 32, "width": 48, "num_frames": 5, "num_inference_steps": 2, "output_type": "latent"}


@pytest.fixture
def folder(pipe: HunyuanCustomPipeline, tmp_path: Path) -> Path:
    pipe.save_pretrained(tmp_path)
    return tmp_path


def test_a_loaded_pipeline_is_the_saved_one(
    pipe: HunyuanCustomPipeline, folder: Path, identity: Image.Image, close: Any
) -> None:
    loaded = load_pipeline(folder, device="cpu", dtype="float32")
    models = [loaded.transformer, loaded.vae, loaded.text_encoder, loaded.text_encoder_2]
    assert not any(model.training for model in models)
    assert not any(parameter.requires_grad for model in models for parameter in model.parameters())
    for name in ("transformer", "vae", "text_encoder", "text_encoder_2"):
        state, saved = loaded.components[name].state_dict(), pipe.components[name].state_dict()
        assert state.keys() == saved.keys()
        assert all(torch.equal(state[key], saved[key]) for key in saved)
    arguments = SMALL | {"latents": torch.randn(1, 16, 2, 4, 6)}
    piece, tolerance = LOADED
    close(piece, loaded("x", identity, **arguments).frames, pipe("x", identity, **arguments).frames, tolerance)


def test_bfloat16_keeps_small_models_wide_on_the_cpu(folder: Path) -> None:
    loaded = load_pipeline(folder, device="cpu", dtype="bfloat16")
    assert loaded.transformer.dtype == torch.bfloat16
    assert loaded.vae.dtype == loaded.text_encoder.dtype == torch.float32


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_weights_that_are_moved_to_a_device_are_those_that_stay(
    dtype: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stay = load_pipeline(folder, device="cpu", dtype=dtype)
    monkeypatch.setattr(load, "_lives_on", lambda *_: True)  # the CPU stands for the device
    moved = load_pipeline(folder, device="cpu", dtype=dtype)
    for name in ("transformer", "vae", "text_encoder", "text_encoder_2"):
        state, expected = moved.components[name].state_dict(), stay.components[name].state_dict()
        assert state.keys() == expected.keys()
        assert all(state[key].dtype == expected[key].dtype for key in expected)
        assert all(torch.equal(state[key], expected[key]) for key in expected)
    assert not any(parameter.requires_grad for parameter in moved.transformer.parameters())


@pytest.mark.parametrize("change", ["missing", "extra", "shape"])
@pytest.mark.parametrize("file", [WEIGHTS, "vae/diffusion_pytorch_model.safetensors", "text_encoder/model.safetensors"])
def test_weights_that_do_not_fit_exactly_are_refused(change: str, file: str, folder: Path) -> None:
    state = load_file(folder / file)
    key = max(state, key=lambda name: (state[name].ndim, name))
    if change == "missing":
        del state[key]
    elif change == "extra":
        state["no.such.weight"] = torch.zeros(1)
    else:
        state[key] = state[key][:-1].clone()
    save_file(state, folder / file, metadata={"format": "pt"})
    with pytest.raises(ValueError, match="does not hold exactly the weights"):
        load_pipeline(folder, device="cpu", dtype="float32")


def test_a_folder_without_a_pipeline_is_refused(tmp_path: Path) -> None:
    with pytest.raises(VerifyError, match=r"no model_index\.json.* run: hunyuan-custom weights prepare"):
        load_pipeline(tmp_path / "absent", device="cpu", dtype="float32")


def test_a_truncated_file_is_refused_by_name_before_anything_is_loaded(folder: Path) -> None:
    (folder / WEIGHTS).write_bytes((folder / WEIGHTS).read_bytes()[:-1])
    reported: list[str] = []
    with pytest.raises(
        VerifyError, match=r"transformer/diffusion_pytorch_model.safetensors: truncated.* weights prepare"
    ):
        load_pipeline(folder, device="cpu", dtype="float32", on_progress=reported.append)
    assert reported == []


def test_progress_names_every_file_and_weights_of_the_right_dtype_stay_in_them(folder: Path) -> None:
    reported: list[str] = []
    loaded = load_pipeline(folder, device="cpu", dtype="float32", on_progress=reported.append)
    assert reported == ["text_encoder", "text_encoder_2", "transformer: file 1 of 1", "vae: file 1 of 1"]
    mapped = Path("/proc/self/maps").read_text()
    assert str(folder / WEIGHTS) in mapped
    assert loaded.device.type == "cpu"


@pytest.mark.parametrize("plain", [True, False], ids=["from_pretrained", "load_pipeline"])
def test_fp8_layers_load_with_their_scales(
    plain: bool, folder: Path, pipe: HunyuanCustomPipeline, identity: Image.Image, tmp_path: Path, close: Any
) -> None:
    state = load_file(folder / WEIGHTS)
    name = "single_transformer_blocks.0.proj_mlp"
    weight = state[f"{name}.weight"]
    scale = weight.abs().max().reshape(1) / 448
    state[f"{name}.weight"] = (weight / scale).to(torch.float8_e4m3fn)
    state[f"{name}.weight_scale"] = scale
    save_file(state, folder / WEIGHTS, metadata={"format": "pt"})

    def load_again(source: Path) -> HunyuanCustomPipeline:
        if plain:
            return HunyuanCustomPipeline.from_pretrained(source)
        return load_pipeline(source, device="cpu", dtype="float32")

    loaded = load_again(folder)
    rounded = copy.deepcopy(pipe.transformer)
    rounded.get_submodule(name).weight.copy_(state[f"{name}.weight"].float() * scale)
    expected = HunyuanCustomPipeline(**(pipe.components | {"transformer": rounded}))
    arguments = SMALL | {"latents": torch.randn(1, 16, 2, 4, 6)}
    frames = expected("x", identity, **arguments).frames
    piece, tolerance = LOADED
    close(piece, loaded("x", identity, **arguments).frames, frames, tolerance)
    loaded.save_pretrained(tmp_path / "again")
    close(piece, load_again(tmp_path / "again")("x", identity, **arguments).frames, frames, tolerance)


@pytest.mark.parametrize("fused", ["eager", "compiled"])
def test_the_vae_of_a_gpu_is_compiled_where_the_blocks_are(
    fused: Fused, folder: Path, identity: Image.Image, monkeypatch: pytest.MonkeyPatch
) -> None:
    compiled: list[Any] = []

    def compiled_passes(*kind: Any) -> Any:
        compiled.append(kind)
        return vae_passes.EAGER_PASSES

    def layers_on_gpu(_device: torch.device, **options: Any) -> Any:
        return layers_on(torch.device("cuda"), **options)

    monkeypatch.setattr("pipeline.vae.streamed.compiled_passes", compiled_passes)
    monkeypatch.setattr(load, "layers_on", layers_on_gpu)
    monkeypatch.setattr(load, "compiled_passes", lambda *_: EAGER_PASSES)  # of the blocks
    loaded = load_pipeline(folder, device="cpu", dtype="float32", fused=fused)
    at_loading = len(compiled)
    loaded("x", identity, **SMALL | {"output_type": "pt"})
    assert (at_loading > 0, len(compiled) > at_loading) == ((True, True) if fused == "compiled" else (False, False))


def test_progress_is_logged_unless_it_is_asked_for(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "pipeline.load")
    load_pipeline(folder, device="cpu", dtype="float32", on_progress=lambda _part: None)
    assert not caplog.messages
    load_pipeline(folder, device="cpu", dtype="float32")
    assert caplog.messages[-1] == "loading vae: file 1 of 1"


def test_a_scale_without_its_layer_is_refused(folder: Path) -> None:
    state = load_file(folder / WEIGHTS) | {"no.such.layer.weight_scale": torch.ones(1)}
    save_file(state, folder / WEIGHTS, metadata={"format": "pt"})
    with pytest.raises(ValueError, match="does not hold exactly the weights"):
        load_pipeline(folder, device="cpu", dtype="float32")
