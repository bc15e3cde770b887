"""A tiny model in the original layout becomes a folder that loads strictly, values and dtypes untouched."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import AutoencoderKLHunyuanVideo, FlowMatchEulerDiscreteScheduler, HunyuanVideoTransformer3DModel
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from torch import Tensor
from transformers import AutoTokenizer, CLIPTextModel, CLIPTokenizer, LlavaForConditionalGeneration

from tests.harness.original_files import DIT
from weights.checks.verify import verify
from weights.convert import convert
from weights.errors import CheckpointError
from weights.originals.key_map import convert_transformer_state_dict
from weights.originals.layout import Variant
from weights.originals.plan_transformer import FULL_SIZE
from weights.writing import shard_writer
from weights.writing import write_components as writing


def loaded_shards(folder: Path) -> dict[str, Tensor]:
    return {key: tensor for file in sorted(folder.glob("*.safetensors")) for key, tensor in load_file(file).items()}


def same(left: dict[str, Tensor], right: dict[str, Tensor]) -> bool:
    return left.keys() == right.keys() and all(
        torch.equal(left[key], right[key]) and left[key].dtype == right[key].dtype for key in left
    )


def test_every_component_loads_strictly_with_the_stored_values(
    original: Path, tmp_path: Path, dit_weights: dict[str, Tensor]
) -> None:
    result = convert(original, tmp_path / "out")
    out = result.target
    assert (result.variant, result.original_keys, result.produced_keys) == (Variant.BF16, 116, 152)
    transformer, info = HunyuanVideoTransformer3DModel.from_pretrained(out / "transformer", output_loading_info=True)
    assert not any(info.values())
    assert same(dict(transformer.state_dict()), convert_transformer_state_dict(dit_weights))
    vae = AutoencoderKLHunyuanVideo.from_pretrained(out / "vae")
    assert vae.config["mid_block_causal_attn"] is True
    assert vae.config["sample_size"] == 32
    assert FlowMatchEulerDiscreteScheduler.from_pretrained(out / "scheduler").config["shift"] == 13.0
    for encoder, folder in ((LlavaForConditionalGeneration, "text_encoder"), (CLIPTextModel, "text_encoder_2")):
        _, info = encoder.from_pretrained(out / folder, output_loading_info=True)
        assert not any(info.values())
    assert AutoTokenizer.from_pretrained(out / "tokenizer")("<image>").input_ids == [548, 554]
    assert CLIPTokenizer.from_pretrained(out / "tokenizer_2")("a").input_ids[0] == 668


def test_a_config_of_only_what_differs_is_completed_by_the_full_size_model(
    original: Path, tmp_path: Path, dit_config: dict[str, Any]
) -> None:
    differing = {key: value for key, value in dit_config.items() if value != FULL_SIZE[key]}
    assert 0 < len(differing) < len(dit_config)
    (original / DIT).with_name("config.json").write_text(json.dumps(differing | {"_diffusers_version": "0.30.0"}))
    convert(original, tmp_path / "out")
    written = json.loads((tmp_path / "out/transformer/config.json").read_text())
    assert written == dit_config | {"_class_name": "HunyuanVideoTransformer3DModel"}


def test_the_leading_models_folder_may_be_absent(original: Path, tmp_path: Path) -> None:
    assert convert(original / "models", tmp_path / "out").produced_keys == 152


def test_dtypes_are_kept_and_every_wrapper_is_read(
    original: Path, tmp_path: Path, dit_weights: dict[str, Tensor]
) -> None:
    mixed = {key: value if key.startswith("final_layer") else value.bfloat16() for key, value in dit_weights.items()}
    for number, content in enumerate((mixed, {"module": mixed, "epoch": 3}, {"state_dict": {"module": mixed}})):
        torch.save(content, original / DIT)
        convert(original, tmp_path / f"out{number}")
        converted = loaded_shards(tmp_path / f"out{number}/transformer")
        assert same(converted, convert_transformer_state_dict(mixed))


def test_legacy_pickle_and_odd_strides(original: Path, tmp_path: Path, dit_weights: dict[str, Tensor]) -> None:
    torch.save(dit_weights, original / DIT, _use_new_zipfile_serialization=False)
    convert(original, tmp_path / "legacy")
    odd = {key: value.t().contiguous().t() if value.ndim == 2 else value for key, value in dit_weights.items()}
    torch.save(odd, original / DIT)
    convert(original, tmp_path / "odd")
    for name in ("legacy", "odd"):
        converted = loaded_shards(tmp_path / name / "transformer")
        assert same(converted, convert_transformer_state_dict(dit_weights))


@pytest.mark.parametrize("prefix", ["", "model.", "transformer.", "model.diffusion_model."])
def test_single_file_safetensors_with_a_prefix(
    original: Path, tmp_path: Path, dit_weights: dict[str, Tensor], prefix: str
) -> None:
    (original / DIT).unlink()
    save_file({prefix + key: value for key, value in dit_weights.items()}, (original / DIT).with_name("x.safetensors"))
    convert(original, tmp_path / "out")
    converted = loaded_shards(tmp_path / "out/transformer")
    assert same(converted, convert_transformer_state_dict(dit_weights))


def test_shards_have_an_index_that_diffusers_follows(
    original: Path, tmp_path: Path, dit_weights: dict[str, Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shard_writer, "SHARD_BYTES", 300_000)
    convert(original, tmp_path / "out")
    folder = tmp_path / "out/transformer"
    index = json.loads((folder / "diffusion_pytorch_model.safetensors.index.json").read_text())
    assert len(set(index["weight_map"].values())) > 3
    assert index["metadata"]["total_size"] == sum(value.nbytes for value in dit_weights.values())
    model = HunyuanVideoTransformer3DModel.from_pretrained(folder)
    assert same(dict(model.state_dict()), convert_transformer_state_dict(dit_weights))


@pytest.mark.parametrize("stored", [torch.float8_e4m3fn, torch.bfloat16, torch.float32])
def test_fp8_is_cast_and_scaled_per_split_layer(
    fp8_original: Path, tmp_path: Path, golden: Path, stored: torch.dtype
) -> None:
    given = load_file(golden / "fp8_io.safetensors")
    fp8 = (fp8_original / DIT).with_name("mp_rank_00_model_states_fp8.pt")
    weights = torch.load(fp8, weights_only=True)["module"]
    torch.save({key: value.to(stored) if value.itemsize == 1 else value for key, value in weights.items()}, fp8)
    result = convert(fp8_original, tmp_path / "out", variant=Variant.FP8)
    converted = loaded_shards(tmp_path / "out/transformer")
    assert result.produced_keys == len(converted) == 152 + 2 * 14 + 2 * 6
    key = "double_blocks.1.img_attn_qkv"
    for part, name in enumerate("qkv"):
        module = f"transformer_blocks.1.attn.to_{name}"
        expected = given[f"w8.{key}.weight"][64 * part : 64 * (part + 1)]
        assert converted[f"{module}.weight"].dtype == torch.float8_e4m3fn
        assert torch.equal(converted[f"{module}.weight"].view(torch.uint8), expected)
        assert torch.equal(converted[f"{module}.weight_scale"], given[f"map.{key}"])
    assert converted["x_embedder.proj.weight"].dtype == torch.bfloat16
    assert converted["transformer_blocks.1.attn.to_q.bias"].dtype == torch.bfloat16


def test_encoders_that_cannot_be_linked_are_copied_and_their_space_is_counted(
    original: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def another_disk(*_: object) -> None:
        raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))

    monkeypatch.setattr(os, "link", another_disk)
    needed: list[int] = []
    monkeypatch.setattr(writing, "require_space", lambda folder, count: needed.append(count))  # noqa: ARG005
    convert(original, tmp_path / "out")
    source = original / "models/llava-llama-3-8b-v1_1/model.safetensors"
    copy = tmp_path / "out/text_encoder/model.safetensors"
    assert copy.read_bytes() == source.read_bytes()
    assert not copy.samefile(source)
    assert verify(tmp_path / "out") == []
    monkeypatch.undo()
    monkeypatch.setattr(writing, "require_space", lambda folder, count: needed.append(count))  # noqa: ARG005
    convert(original, tmp_path / "linked")
    clip = original / "models/openai_clip-vit-large-patch14/model.safetensors"
    assert needed[0] - needed[1] == source.stat().st_size + clip.stat().st_size


def test_safetensors_encoders_are_hard_linked_and_bin_encoders_streamed(original: Path, tmp_path: Path) -> None:
    convert(original, tmp_path / "out")
    linked = tmp_path / "out/text_encoder/model.safetensors"
    assert linked.samefile(original / "models/llava-llama-3-8b-v1_1/model.safetensors")
    for folder in ("llava-llama-3-8b-v1_1", "openai_clip-vit-large-patch14"):
        source = original / "models" / folder / "model.safetensors"
        torch.save(load_file(source), source.with_name("pytorch_model.bin"))
        source.unlink()
    convert(original, tmp_path / "bins")
    assert same(loaded_shards(tmp_path / "bins/text_encoder"), load_file(linked))


def test_a_full_clip_gives_its_text_tower(original: Path, tmp_path: Path) -> None:
    folder = original / "models/openai_clip-vit-large-patch14"
    weights = load_file(folder / "model.safetensors")
    text_config = json.loads((folder / "config.json").read_text())
    others = {"visual_projection.weight": torch.ones(2, 2), "logit_scale": torch.ones(())}
    save_file(weights | others, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps({"model_type": "clip", "text_config": text_config}))
    convert(original, tmp_path / "out")
    assert same(loaded_shards(tmp_path / "out/text_encoder_2"), weights)
    _, info = CLIPTextModel.from_pretrained(tmp_path / "out/text_encoder_2", output_loading_info=True)
    assert not any(info.values())


def test_padding_and_truncation_stored_with_the_tokenizer_do_not_matter(original: Path, tmp_path: Path) -> None:
    path = original / "models/llava-llama-3-8b-v1_1/tokenizer.json"
    tokenizer = Tokenizer.from_file(str(path))
    tokenizer.enable_padding(length=200)
    tokenizer.enable_truncation(50)
    tokenizer.save(str(path))
    convert(original, tmp_path / "out")
    assert verify(tmp_path / "out") == []


def test_mid_attention_of_the_vae_is_read_and_absent_means_full(original: Path, tmp_path: Path) -> None:
    path = original / "models/vae_3d/hyvae_v1_0801/config.json"
    config: dict[str, Any] = json.loads(path.read_text())
    del config["mid_block_causal_attn"]
    path.write_text(json.dumps(config))
    convert(original, tmp_path / "out")
    assert json.loads((tmp_path / "out/vae/config.json").read_text())["mid_block_causal_attn"] is False


def test_headers_say_pt_so_that_transformers_loads_them(original: Path, tmp_path: Path) -> None:
    convert(original, tmp_path / "out")
    with safe_open(tmp_path / "out/vae/diffusion_pytorch_model.safetensors", "pt") as file:
        assert file.metadata() == {"format": "pt"}


def test_encoders_in_shards_bring_their_index(original: Path, tmp_path: Path) -> None:
    folder = original / "models/llava-llama-3-8b-v1_1"
    weights = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    weight_map = {key: f"model-0000{1 + ('vision' in key)}-of-00002.safetensors" for key in weights}
    for name in set(weight_map.values()):
        save_file({key: weights[key] for key in weights if weight_map[key] == name}, folder / name, {"format": "pt"})
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    convert(original, tmp_path / "out")
    assert same(loaded_shards(tmp_path / "out/text_encoder"), weights)
    _, info = LlavaForConditionalGeneration.from_pretrained(tmp_path / "out/text_encoder", output_loading_info=True)
    assert not any(info.values())
    index.write_text(json.dumps({"metadata": {}, "weight_map": {"x": "../../secret.safetensors"}}))
    with pytest.raises(CheckpointError, match="names no files of this folder"):
        convert(original, tmp_path / "out")
