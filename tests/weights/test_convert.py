"""A tiny model in the original layout becomes a folder that loads strictly, values and dtypes untouched."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
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

from weights import convert as convert_module
from weights import direct_file, shard_writer, staging
from weights.convert import convert, is_current
from weights.errors import CheckpointError, TargetError
from weights.key_map import convert_transformer_state_dict
from weights.loading_check import check_loadable
from weights.original_layout import Variant
from weights.plan_transformer import FULL_SIZE
from weights.staging import MARKER
from weights.verify import verify

DIT = "models/hunyuancustom_720P/mp_rank_00_model_states.pt"


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
    write_shards = shard_writer.write_shards
    monkeypatch.setattr(convert_module, "write_shards", lambda *a, **k: write_shards(*a, **k, shard_bytes=300_000))
    convert(original, tmp_path / "out")
    folder = tmp_path / "out/transformer"
    index = json.loads((folder / "diffusion_pytorch_model.safetensors.index.json").read_text())
    assert len(set(index["weight_map"].values())) > 3
    assert index["metadata"]["total_size"] == sum(value.nbytes for value in dit_weights.values())
    model = HunyuanVideoTransformer3DModel.from_pretrained(folder)
    assert same(dict(model.state_dict()), convert_transformer_state_dict(dit_weights))


def test_small_buffers_change_nothing(
    original: Path, tmp_path: Path, dit_weights: dict[str, Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shard_writer, "BUFFER_BYTES", 1000)
    monkeypatch.setattr(direct_file, "BUFFER_BYTES", 8192)
    convert(original, tmp_path / "out")
    assert same(loaded_shards(tmp_path / "out/transformer"), convert_transformer_state_dict(dit_weights))


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


HANGING = """
import sys, time
from pathlib import Path
from weights import convert, direct_file, staging
def hang():
    print("there", flush=True)
    time.sleep(600)
def hang_in_the_vae(handle, view, write=direct_file.write_all):
    write(handle, view)
    if "/vae/" in str(Path(f"/proc/self/fd/{handle}").readlink()):
        hang()
def hang_after(first, second, exchange=staging._exchange):
    exchange(first, second)
    hang()
if sys.argv[3] == "writing":
    direct_file.write_all = hang_in_the_vae
else:
    staging._exchange = hang_after
convert.convert(Path(sys.argv[1]), Path(sys.argv[2]))
"""


@contextlib.contextmanager
def killed_while(moment: str, original: Path, out: Path) -> Iterator[None]:
    """A conversion in a process of its own that gets as far as `moment`, and no further than the block."""
    command = [sys.executable, "-c", HANGING, str(original), str(out), moment]
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "there\n"
        try:
            yield
        finally:
            process.kill()


def test_a_killed_run_leaves_nothing_that_loads_and_the_next_one_starts_cleanly(original: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with killed_while("writing", original, out), pytest.raises(TargetError, match="another run into this folder"):
        convert(original, out)
    assert not out.exists()
    assert list(tmp_path.rglob("model_index.json")) == []
    convert(original, out)
    assert verify(out) == []
    assert sorted(path.name for path in tmp_path.iterdir()) == ["originals", "out"]


@pytest.mark.parametrize("moment", ["writing", "exchanging"])
def test_killed_over_a_good_conversion_there_is_one_that_loads_at_every_moment(
    original: Path, tmp_path: Path, moment: str
) -> None:
    out = tmp_path / "out"
    convert(original, out)
    before = (out / MARKER).stat().st_ino
    with killed_while(moment, original, out):
        check_loadable(out)
    assert verify(out) == []
    assert ((out / MARKER).stat().st_ino == before) == (moment == "writing")
    notes: list[str] = []
    verify(out, contents=False, note=notes.append)
    assert any(".out.converting" in note and "GB" in note for note in notes)
    convert(original, out)
    assert verify(out) == []
    assert sorted(path.name for path in tmp_path.iterdir()) == ["originals", "out"]


def test_without_an_exchange_two_renames_do(
    original: Path, converted_once: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = shutil.copytree(converted_once, tmp_path / "out")
    before = (out / MARKER).stat().st_ino
    monkeypatch.setattr(staging, "_exchange", lambda first, second: False)  # noqa: ARG005
    convert(original, out)
    assert (out / MARKER).stat().st_ino != before
    assert verify(out) == []
    assert sorted(path.name for path in tmp_path.iterdir()) == ["originals", "out"]


def test_what_a_killed_run_left_does_not_count_as_used_disk(
    original: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / ".out.converting").mkdir()
    (tmp_path / ".out.converting/big").write_bytes(bytes(50_000_000))
    usage = shutil.disk_usage(tmp_path)

    def nearly_full(_path: Path) -> object:
        used = sum(path.stat().st_size for path in (tmp_path / ".out.converting").rglob("*"))
        return usage._replace(free=140_000_000 - used)

    monkeypatch.setattr(shutil, "disk_usage", nearly_full)
    convert(original, tmp_path / "out")
    assert verify(tmp_path / "out") == []


def test_a_link_as_target_means_the_folder_it_leads_to(original: Path, tmp_path: Path) -> None:
    (tmp_path / "big").mkdir()
    (tmp_path / "out").symlink_to(tmp_path / "big/model")
    convert(original, tmp_path / "out")
    assert (tmp_path / "out").is_symlink()
    assert verify(tmp_path / "big/model") == []


def test_encoders_that_cannot_be_linked_are_copied_and_their_space_is_counted(
    original: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def another_disk(*_: object) -> None:
        raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))

    monkeypatch.setattr(os, "link", another_disk)
    needed: list[int] = []
    monkeypatch.setattr(convert_module, "require_space", lambda folder, count: needed.append(count))  # noqa: ARG005
    convert(original, tmp_path / "out")
    source = original / "models/llava-llama-3-8b-v1_1/model.safetensors"
    copy = tmp_path / "out/text_encoder/model.safetensors"
    assert copy.read_bytes() == source.read_bytes()
    assert not copy.samefile(source)
    assert verify(tmp_path / "out") == []
    monkeypatch.undo()
    monkeypatch.setattr(convert_module, "require_space", lambda folder, count: needed.append(count))  # noqa: ARG005
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
    strangers = {"visual_projection.weight": torch.ones(2, 2), "logit_scale": torch.ones(())}
    save_file(weights | strangers, folder / "model.safetensors")
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


def test_a_conversion_is_current_until_an_original_changes(original: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert not is_current(original, out, None)
    convert(original, out)
    assert is_current(original, out, None)
    record = (out / MARKER).read_bytes()
    for damaged in (record[:100], b"\xff\xfe", b"[]"):
        (out / MARKER).write_bytes(damaged)
        assert not is_current(original, out, None)
    (out / MARKER).write_bytes(record)
    os.utime(original / DIT, (1, 1))
    assert not is_current(original, out, None)


def test_a_conversion_replaces_an_older_one_and_what_a_killed_run_left(original: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    convert(original, out)
    before = (out / "transformer/diffusion_pytorch_model.safetensors").stat().st_ino
    (tmp_path / ".out.converting/transformer").mkdir(parents=True)
    (tmp_path / ".out.converting/transformer/left").touch()
    convert(original, out)
    assert (out / "transformer/diffusion_pytorch_model.safetensors").stat().st_ino != before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["originals", "out"]


def test_killed_between_the_two_renames_the_older_conversion_comes_back(original: Path, tmp_path: Path) -> None:
    convert(original, tmp_path / "out")
    (tmp_path / "out").rename(tmp_path / ".out.replaced")
    shutil.rmtree(original)
    with pytest.raises(Exception, match="missing"):
        convert(original, tmp_path / "out")
    with convert_module.staged_folder(tmp_path / "out"):
        assert (tmp_path / "out/model_index.json").is_file()


def test_headers_say_pt_so_that_transformers_loads_them(original: Path, tmp_path: Path) -> None:
    convert(original, tmp_path / "out")
    with safe_open(tmp_path / "out/vae/diffusion_pytorch_model.safetensors", "pt") as file:
        assert file.metadata() == {"format": "pt"}


def test_a_file_system_without_direct_writes(
    original: Path, tmp_path: Path, dit_weights: dict[str, Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = os.open

    def without_direct(path: Path, flags: int, *mode: int, **options: Any) -> int:
        if flags & os.O_DIRECT:
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        return opened(path, flags, *mode, **options)

    monkeypatch.setattr(os, "open", without_direct)
    convert(original, tmp_path / "out")
    assert same(loaded_shards(tmp_path / "out/transformer"), convert_transformer_state_dict(dit_weights))


def test_an_empty_folder_may_be_the_target(original: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    convert(original, tmp_path / "out")
    assert verify(tmp_path / "out") == []


def test_encoders_in_shards_bring_their_index(original: Path, tmp_path: Path) -> None:
    folder = original / "models/llava-llama-3-8b-v1_1"
    weights = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    places = {key: f"model-0000{1 + ('vision' in key)}-of-00002.safetensors" for key in weights}
    for name in set(places.values()):
        save_file({key: weights[key] for key in weights if places[key] == name}, folder / name, {"format": "pt"})
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": places}))
    convert(original, tmp_path / "out")
    assert same(loaded_shards(tmp_path / "out/text_encoder"), weights)
    _, info = LlavaForConditionalGeneration.from_pretrained(tmp_path / "out/text_encoder", output_loading_info=True)
    assert not any(info.values())
    index.write_text(json.dumps({"metadata": {}, "weight_map": {"x": "../../secret.safetensors"}}))
    with pytest.raises(CheckpointError, match="names no files of this folder"):
        convert(original, tmp_path / "out")
