"""Every kind of bad input is one line that names file and key, and leaves an earlier conversion as it was."""

from __future__ import annotations

import json
import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from tests.harness.command import run_command
from tests.harness.original_files import CLIP, CLIP_WEIGHTS, DIT, LLAVA, LLAVA_WEIGHTS, VAE
from tests.harness.refusals import refused
from weights.errors import (
    BadValuesError,
    CheckpointError,
    KeyMapError,
    StructureError,
    TokenizerError,
    UnsafePickleError,
    WrongModelError,
)
from weights.originals import torch_checkpoint
from weights.originals.layout import Variant

Weights = dict[str, Tensor]


class Runs:
    """A pickle that makes a folder if it is executed."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[..., None], tuple[str]]:
        return os.mkdir, (str(self.path),)


def save_dit(original: Path, weights: Weights) -> None:
    torch.save({"module": weights}, original / DIT)


@pytest.mark.parametrize("kept", [0, 3, 1000, 0.5, 0.999])
def test_a_truncated_checkpoint(original: Path, good: Path, kept: float) -> None:
    path = original / DIT
    content = path.read_bytes()
    path.write_bytes(content[: int(kept * len(content)) if isinstance(kept, float) else kept])
    refused(original, good, CheckpointError, DIT)


def test_a_flipped_bit_in_a_tensor(original: Path, good: Path, dit_weights: Weights) -> None:
    key = "single_blocks.1.linear1.weight"
    content = bytearray((original / DIT).read_bytes())
    start = content.find(dit_weights[key].numpy().tobytes()) + 1000
    content[start] ^= 1
    (original / DIT).write_bytes(content)
    refused(original, good, CheckpointError, DIT, key, "checksum")


def test_a_file_that_is_no_checkpoint(original: Path, good: Path) -> None:
    (original / DIT).write_text("version https://git-lfs.github.com/spec/v1\n")
    refused(original, good, CheckpointError, DIT, "not a PyTorch checkpoint")


@pytest.mark.parametrize("zipped", [True, False])
def test_a_pickle_with_code_is_refused_and_not_executed(
    original: Path, good: Path, tmp_path: Path, zipped: bool
) -> None:
    marker = tmp_path / "executed"
    torch.save({"module": Runs(marker)}, original / DIT, _use_new_zipfile_serialization=zipped)
    refused(original, good, UnsafePickleError, DIT, "mkdir")
    assert not marker.exists()


def test_a_bare_pickle_with_code_is_refused_and_not_executed(original: Path, good: Path, tmp_path: Path) -> None:
    marker = tmp_path / "executed"
    (original / VAE).write_bytes(pickle.dumps({"state_dict": Runs(marker)}))
    refused(original, good, CheckpointError, VAE, "executed")
    assert not marker.exists()


def test_a_legacy_pickle_that_is_too_large_to_load_whole(
    original: Path, good: Path, dit_weights: Weights, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.save(dit_weights, original / DIT, _use_new_zipfile_serialization=False)
    monkeypatch.setattr(torch_checkpoint, "MAX_LEGACY_BYTES", 100_000)
    refused(original, good, CheckpointError, DIT, "whole", "save it again")


@pytest.mark.parametrize(
    ("key", "model"),
    [
        ("guidance_in.mlp.0.weight", "HunyuanVideo with its guidance embedding"),
        ("vision_in.proj.0.weight", "HunyuanVideo 1.5"),
        ("audio_models.0.to_q.weight", "audio variant"),
        ("bg_in.proj.weight", "editing variant"),
    ],
)
def test_the_wrong_model(original: Path, good: Path, dit_weights: Weights, key: str, model: str) -> None:
    save_dit(original, dit_weights | {key: torch.ones(4, 4)})
    refused(original, good, WrongModelError, DIT, key, model)


def test_a_sibling_of_other_widths_is_named_for_what_it_is(original: Path, good: Path, dit_weights: Weights) -> None:
    wide = {key: torch.ones(2 * value.shape[0], *value.shape[1:]) for key, value in dit_weights.items()}
    save_dit(original, wide | {"vision_in.proj.0.weight": torch.ones(4, 4)})  # the last key of all
    refused(original, good, WrongModelError, DIT, "vision_in.proj.0.weight", "HunyuanVideo 1.5")
    save_dit(original, wide | {"img_in.proj.weight": torch.ones(2048, 65, 1, 1, 1)})
    refused(original, good, WrongModelError, DIT, "img_in.proj.weight", "HunyuanVideo 1.5")


def test_the_wrong_variants_folder(original: Path, good: Path) -> None:
    (original / DIT).parent.rename((original / DIT).parent.with_name("hunyuancustom_audio_720P"))
    refused(original, good, WrongModelError, "audio", "hunyuancustom_720P")


def test_an_unknown_and_a_missing_key(original: Path, good: Path, dit_weights: Weights) -> None:
    save_dit(original, dit_weights | {"lora.weight": torch.ones(1)})
    refused(original, good, KeyMapError, DIT, "lora.weight")
    key = "txt_in.c_embedder.linear_1.bias"
    save_dit(original, {name: value for name, value in dit_weights.items() if name != key})
    refused(original, good, StructureError, DIT, key, "missing")


def test_the_sizes_of_another_model(original: Path, good: Path) -> None:
    (original / DIT).with_name("config.json").unlink()  # the full size is expected
    refused(original, good, KeyMapError, DIT, "rows")
    (original / DIT).with_name("config.json").write_text(json.dumps({"n_layers": 3}))
    refused(original, good, StructureError, "config.json", "n_layers")


def test_a_wrong_shape(original: Path, good: Path, dit_weights: Weights) -> None:
    save_dit(original, dit_weights | {"img_in.proj.weight": torch.ones(64, 33, 1, 2, 2)})
    refused(original, good, StructureError, DIT, "img_in.proj.weight", "33")


def test_control_characters_in_names_are_escaped(original: Path, good: Path, dit_weights: Weights) -> None:
    save_dit(original, dit_weights | {"a\nb\x1b[2J": torch.ones(1)})
    folder = original.rename(original.with_name("two\nlines"))
    refused(folder, good, KeyMapError, r"two\nlines", r"a\nb\x1b[2J")
    save_dit(folder, dit_weights)
    told = run_command("weights", "convert", str(folder), str(folder / "out\x07"))
    assert told.code == 0
    assert told.out.startswith(rf"{folder.parent}/two\nlines/out\x07: bf16, ")
    assert told.out.count("\n") == 1


def test_fp8_without_its_map(original: Path, good: Path, dit_weights: Weights) -> None:
    fp8 = (original / DIT).with_name("mp_rank_00_model_states_fp8.pt")
    shutil.copy(original / DIT, fp8)
    refused(original, good, CheckpointError, "fp8_map.pt", "missing", variant=Variant.FP8)
    torch.save({"module": {"double_blocks.0.img_attn_qkv": torch.ones(1)}}, fp8.with_name(f"{fp8.stem}_map.pt"))
    refused(original, good, KeyMapError, "fp8_map.pt", "double_blocks.0.img_attn_proj", variant=Variant.FP8)
    save_dit(original, dit_weights | {"single_blocks.0.linear2.weight": torch.ones(64, 320).to(torch.float8_e4m3fn)})
    refused(original, good, CheckpointError, DIT, "single_blocks.0.linear2.weight", "scale")


def test_a_scale_that_is_no_number(original: Path, good: Path) -> None:
    fp8 = (original / DIT).with_name("mp_rank_00_model_states_fp8.pt")
    shutil.copy(original / DIT, fp8)
    torch.save({"single_blocks.0.linear1": torch.tensor(float("nan"))}, fp8.with_name(f"{fp8.stem}_map.pt"))
    refused(original, good, BadValuesError, "single_blocks.0.linear1", variant=Variant.FP8)


def test_scales_that_do_not_fit_their_layer(fp8_original: Path, good: Path) -> None:
    path = (fp8_original / DIT).with_name("mp_rank_00_model_states_fp8_map.pt")
    scales = torch.load(path, weights_only=True)["module"]
    torch.save({"module": scales | {"single_blocks.0.linear2": torch.ones(3)}}, path)
    words = (path.name, "single_blocks.0.linear2", "3 scales for 64 rows")
    refused(fp8_original, good, StructureError, *words, variant=Variant.FP8)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("value", [float("nan"), float("-inf")])
def test_nan_and_infinity(original: Path, good: Path, dit_weights: Weights, dtype: torch.dtype, value: float) -> None:
    key = "double_blocks.1.txt_mlp.fc2.weight"
    weights = {name: tensor.to(dtype, copy=True) for name, tensor in dit_weights.items()}
    weights[key][17, 3] = value
    save_dit(original, weights)
    refused(original, good, BadValuesError, DIT, key)


def test_nan_in_a_hard_linked_encoder(original: Path, good: Path) -> None:
    source = original / "models/openai_clip-vit-large-patch14/model.safetensors"
    weights = load_file(source)
    key = "text_model.final_layer_norm.bias"
    weights[key] = torch.full_like(weights[key], float("nan"))
    save_file(weights, source.with_name("new"))
    source.with_name("new").replace(source)
    refused(original, good, BadValuesError, str(source), key)


def test_values_that_do_not_fit_fp8(original: Path, good: Path, dit_weights: Weights) -> None:
    key = "single_blocks.0.linear2.weight"
    fp8 = (original / DIT).with_name("mp_rank_00_model_states_fp8.pt")
    torch.save(dit_weights | {key: torch.full((64, 320), 1e4)}, fp8)
    names = [name.removesuffix(".weight") for name, value in dit_weights.items() if value.ndim == 2]
    scales = {name: torch.ones(1) for name in names if name.startswith(("double_", "single_")) and "." in name}
    torch.save(scales, fp8.with_name(f"{fp8.stem}_map.pt"))
    refused(original, good, BadValuesError, fp8.name, key, variant=Variant.FP8)


def test_a_truncated_safetensors(original: Path, good: Path, dit_weights: Weights) -> None:
    (original / DIT).unlink()
    path = (original / DIT).with_name("dit.safetensors")
    save_file(dit_weights, path)
    path.write_bytes(path.read_bytes()[:-8])
    refused(original, good, CheckpointError, "dit.safetensors", "truncated")


def test_missing_parts_are_named(original: Path, good: Path) -> None:
    (original / VAE).unlink()
    refused(original, good, CheckpointError, VAE, "missing")


def test_a_tokenizer_of_another_model(original: Path, good: Path) -> None:
    path = original / LLAVA / "tokenizer.json"
    tokenizer = json.loads(path.read_text())
    path.write_text(json.dumps(tokenizer | {"post_processor": None}))
    refused(original, good, TokenizerError, "tokenizer.json", "94 tokens")
    path.write_text("{")
    refused(original, good, TokenizerError, "tokenizer.json")


def test_a_tokenizer_whose_first_token_is_not_bos(original: Path, good: Path) -> None:
    path = original / LLAVA / "tokenizer_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"bos_token": "<|end_of_text|>"}))
    refused(original, good, TokenizerError, "tokenizer.json", "first token is '<|begin_of_text|>'", "<|end_of_text|>")


def test_an_image_token_the_config_does_not_name(original: Path, good: Path) -> None:
    path = original / LLAVA / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"image_token_index": 7}))
    refused(original, good, TokenizerError, "<image>", "554", "7")


@pytest.mark.parametrize("name", ["vocab.json", "merges.txt"])
def test_a_clip_tokenizer_without_its_files(original: Path, good: Path, name: str) -> None:
    (original / CLIP / name).unlink()
    refused(original, good, TokenizerError, f"{CLIP}/{name}", "missing")


def test_a_clip_tokenizer_of_another_model(original: Path, good: Path) -> None:
    path = original / CLIP / "vocab.json"
    vocabulary = json.loads(path.read_text())
    path.write_text(json.dumps(vocabulary | {"more": len(vocabulary)}))
    refused(original, good, TokenizerError, CLIP, "671 tokens", "vocab_size is 670")
    path.write_text("{")
    refused(original, good, TokenizerError, CLIP, "CLIPTokenizer refuses its files")


def test_a_missing_encoder_tensor(original: Path, good: Path) -> None:
    path = original / LLAVA / "config.json"
    config = json.loads(path.read_text())
    config["text_config"]["num_hidden_layers"] = 5
    path.write_text(json.dumps(config))
    refused(original, good, StructureError, f"{LLAVA}/model.safetensors", "layers.4", "missing")


def test_an_encoder_without_a_layer_is_named_by_its_own_files(original: Path, good: Path) -> None:
    weights = load_file(original / LLAVA_WEIGHTS)
    key = next(name for name in weights if "layers.1.mlp.up_proj" in name)
    save_file({name: value for name, value in weights.items() if name != key}, original / LLAVA_WEIGHTS)
    refused(original, good, StructureError, str(original / LLAVA_WEIGHTS), "missing", "layers.1.mlp.up_proj")
    torch.save(weights | {"unknown": torch.ones(1)}, (original / LLAVA_WEIGHTS).with_name("pytorch_model.bin"))
    (original / LLAVA_WEIGHTS).unlink()
    refused(original, good, StructureError, f"{LLAVA}/pytorch_model.bin", "left over", "unknown")


def test_whole_numbers_where_weights_should_be(original: Path, good: Path, dit_weights: Weights) -> None:
    key = "encoder.conv_in.conv.weight"
    vae = torch.load(original / VAE, weights_only=True)["state_dict"]
    named = next(name for name in vae if name.endswith(key))
    torch.save({"state_dict": vae | {named: vae[named].to(torch.int8)}}, original / VAE)
    refused(original, good, StructureError, VAE, key, "int8")
    torch.save({"state_dict": vae}, original / VAE)
    save_dit(original, dit_weights | {"img_in.proj.bias": torch.ones(64, dtype=torch.int32)})
    refused(original, good, CheckpointError, DIT, "img_in.proj.bias", "int32")
    save_dit(original, dit_weights)
    clip = load_file(original / CLIP_WEIGHTS)
    key = "text_model.final_layer_norm.bias"
    save_file(clip | {key: clip[key].to(torch.int32)}, original / CLIP_WEIGHTS)
    refused(original, good, StructureError, CLIP_WEIGHTS, key, "int32")


def test_nan_in_the_vae_and_in_fp8(fp8_original: Path, good: Path) -> None:
    vae = torch.load(fp8_original / VAE, weights_only=True)["state_dict"]
    key = next(name for name in vae if name.endswith("decoder.conv_out.conv.bias"))
    torch.save({"state_dict": vae | {key: torch.full_like(vae[key], float("nan"))}}, fp8_original / VAE)
    refused(fp8_original, good, BadValuesError, VAE, key)
    torch.save({"state_dict": vae}, fp8_original / VAE)
    path = (fp8_original / DIT).with_name("mp_rank_00_model_states_fp8.pt")
    weights = torch.load(path, weights_only=True)["module"]
    key = "single_blocks.1.linear2.weight"
    weights[key].view(torch.uint8)[3, 5] = 0xFF
    torch.save({"module": weights}, path)
    refused(fp8_original, good, BadValuesError, path.name, key, variant=Variant.FP8)
