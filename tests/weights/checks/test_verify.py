"""Verify names everything that is missing, left over or wrong, in one run."""

from __future__ import annotations

import json
import shutil
import zlib
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.harness.command import run_command
from tests.harness.original_files import DIT
from weights.checks.verify import verify
from weights.convert import convert
from weights.hub.lock_file import LOCK_NAME
from weights.originals.layout import Variant
from weights.originals.plan_transformer import FULL_SIZE
from weights.originals.structure import differences, summary, transformer_shapes
from weights.reporter import Reporter
from weights.writing.staging import MARKER

VAE = "vae/diffusion_pytorch_model.safetensors"


@pytest.fixture
def converted(converted_once: Path, tmp_path: Path) -> Path:
    return shutil.copytree(converted_once, tmp_path / "out")


def rerecord(folder: Path, name: str) -> None:
    """Make the record say what is on disk, so that only structure can tell."""
    record: dict[str, Any] = json.loads((folder / MARKER).read_text())
    for file in record["files"]:
        if file["name"] == name:
            content = (folder / name).read_bytes()
            file |= {"size": len(content), "crc32": zlib.crc32(content)}
    (folder / MARKER).write_text(json.dumps(record))


def test_a_sound_conversion_and_sound_originals(original: Path, converted: Path) -> None:
    assert verify(converted) == []
    assert verify(original) == []


def test_missing_short_changed_and_left_over_files_are_all_named(converted: Path) -> None:
    (converted / VAE).unlink()
    text = converted / "text_encoder_2/config.json"
    text.write_text(text.read_text()[:-5])
    transformer = converted / "transformer/diffusion_pytorch_model.safetensors"
    content = bytearray(transformer.read_bytes())
    content[-7] ^= 16
    transformer.write_bytes(content)
    (converted / "vae/old.safetensors").touch()
    faults = verify(converted)
    assert len(faults) == 4
    for path, words in (
        (converted / VAE, "missing"),
        (text, "bytes instead of"),
        (transformer, "changed"),
        (converted / "vae/old.safetensors", "left over"),
    ):
        assert any(str(path) in fault and words in fault for fault in faults)
    assert len(verify(converted, contents=False)) == 3


def test_structure_is_compared_with_the_model(converted: Path) -> None:
    weights = load_file(converted / VAE)
    del weights["quant_conv.bias"]
    weights["decoder.conv_in.conv.bias"] = torch.zeros(3)
    save_file(weights | {"unknown": torch.zeros(1)}, converted / VAE)
    rerecord(converted, VAE)
    faults = " ".join(verify(converted))
    for words in ("missing: quant_conv.bias", "left over: unknown", "decoder.conv_in.conv.bias [3] instead of [16]"):
        assert words in faults


def test_every_wrong_key_is_named(converted: Path) -> None:
    weights = load_file(converted / VAE)
    lost = [name for name in weights if name.startswith("decoder.up_blocks")]
    assert len(lost) > 10
    kept = {name: value for name, value in weights.items() if name not in lost}
    save_file(kept | {"quant_conv.bias": kept["quant_conv.bias"].to(torch.int8)}, converted / VAE)
    rerecord(converted, VAE)
    encoder = "text_encoder/model.safetensors"
    weights = load_file(converted / encoder)
    (converted / encoder).unlink()  # a link to the original
    unknown = {f"unknown.{number}": torch.zeros(1) for number in range(5)}
    save_file(weights | unknown, converted / encoder, {"format": "pt"})
    rerecord(converted, encoder)
    faults = verify(converted)
    vae, text_encoder = converted / "vae", converted / "text_encoder"
    assert sorted(faults) == sorted(
        [
            *(f"{vae}: missing: {name}" for name in lost),
            f"{vae}: wrong dtype: quant_conv.bias int8 instead of floating point of 16 bit or more",
            *(f"{text_encoder}: left over: {name}" for name in unknown),
        ]
    )


def test_dtypes_belong_to_the_variant(fp8_original: Path, tmp_path: Path) -> None:
    out = convert(fp8_original, tmp_path / "out", variant=Variant.FP8).target
    name = "transformer/diffusion_pytorch_model.safetensors"
    weights = load_file(out / name)
    layer = "single_transformer_blocks.0.proj_mlp"
    weights[f"{layer}.weight"] = weights[f"{layer}.weight"].bfloat16()
    weights[f"{layer}.weight_scale"] = weights[f"{layer}.weight_scale"].bfloat16()
    weights["proj_out.weight"] = weights["proj_out.weight"].to(torch.float8_e4m3fn)
    save_file(weights, out / name, {"format": "pt"})
    rerecord(out, name)
    words = ("weight bfloat16 instead of float8_e4m3fn", "weight_scale bfloat16 instead of float32")
    faults = [f"wrong dtype: {layer}.{word}" for word in words]
    faults.append("wrong dtype: proj_out.weight float8_e4m3fn instead of floating point of 16 bit or more")
    assert sorted(verify(out)) == sorted(f"{out / 'transformer'}: {fault}" for fault in faults)


def test_bf16_with_an_fp8_tensor_is_noticed(converted: Path) -> None:
    name = "transformer/diffusion_pytorch_model.safetensors"
    weights = load_file(converted / name)
    key = "transformer_blocks.0.attn.to_q.weight"
    save_file(weights | {key: weights[key].to(torch.float8_e4m3fn)}, converted / name, {"format": "pt"})
    rerecord(converted, name)
    assert [key in fault and "float8" in fault for fault in verify(converted)] == [True]


def test_a_config_no_model_can_be_built_by_is_named(converted: Path) -> None:
    for name in ("transformer/config.json", "vae/config.json", "text_encoder/config.json"):
        path = converted / name
        path.write_text(json.dumps(json.loads(path.read_text()) | {"norm_num_groups": 0, "vision_config": 3}))
        rerecord(converted, name)
    faults = verify(converted)
    assert [sum(name in fault for fault in faults) for name in ("transformer/config", "vae/config")] == [1, 1]
    assert any("text_encoder/config.json: LlavaForConditionalGeneration refuses it" in fault for fault in faults)


def test_what_could_not_be_compared_is_said(original: Path) -> None:
    notes: list[str] = []
    assert verify(original, reporter=Reporter(say=notes.append)) == []
    assert [LOCK_NAME in note and "no hashes" in note for note in notes] == [True]
    part = original / "models/hunyuancustom_720P/.x.0123.part"
    part.write_bytes(b"half")
    verify(original, contents=False, reporter=Reporter(say=notes.append))
    assert str(part) in notes[-1]


def test_progress_covers_every_byte(converted: Path) -> None:
    total: list[int] = []
    done: list[int] = []
    verify(converted, reporter=Reporter(start=lambda _, nbytes: total.append(nbytes), progress=done.append))
    record = json.loads((converted / MARKER).read_text())
    assert sum(done) == total[0] == sum(file["size"] for file in record["files"])


def test_a_conversion_of_another_variant_is_said_before_anything_else(converted: Path) -> None:
    record = json.loads((converted / MARKER).read_text())
    (converted / MARKER).write_text(json.dumps(record | {"format": 0}))
    command = f"run: hunyuan-custom weights prepare --variant {{}} --out {converted}"
    assert verify(converted, variant=Variant.FP8) == [
        f"{converted}: is bf16, not fp8; to replace it {command.format('fp8')}"
    ]
    (fault,) = verify(converted, variant=Variant.BF16)
    assert "format 0" in fault
    assert fault.endswith(command.format("bf16"))


@pytest.mark.parametrize("kind", ["md5", 7])
def test_a_lock_file_that_is_none_is_to_blame_and_not_the_originals(fp8_original: Path, kind: Any) -> None:
    entry = {"repository": "a/b", "commit": "c", "path": "d", "size": (fp8_original / DIT).stat().st_size, "hash": kind}
    lock = fp8_original / LOCK_NAME
    lock.write_text(json.dumps({"licence": None, "files": {DIT: entry}}))
    (fault,) = verify(fp8_original, variant=Variant.FP8)
    assert fault.startswith(f"{lock}: not a lock file")
    command = f"hunyuan-custom weights download --variant fp8 --originals {fp8_original}"
    assert fault.endswith(f"delete it and run: {command}")


def test_a_damaged_record_is_named(converted: Path) -> None:
    for content in ("{", "[]", '{"files": [7], "variant": "bf16"}', '{"files": [], "variant": "int3"}'):
        (converted / MARKER).write_text(content)
        assert [str(converted / MARKER) in fault for fault in verify(converted)] == [True]


def test_originals_that_cannot_be_converted_are_named(original: Path) -> None:
    (original / DIT).write_bytes((original / DIT).read_bytes()[:-100])
    assert any(DIT in fault for fault in verify(original))


def test_a_folder_that_is_neither(tmp_path: Path) -> None:
    assert "missing" in verify(tmp_path)[0]
    (tmp_path / "model_index.json").touch()
    assert "not made by" in verify(tmp_path)[0]


def test_the_command_exits_with_1_and_names_the_file(original: Path, tmp_path: Path) -> None:
    done = run_command("weights", "convert", str(original), str(tmp_path / "out"))
    assert done.code == 0
    assert "116 tensors of the transformer became 152" in done.out
    assert run_command("weights", "verify", str(tmp_path / "out"), "--quick").code == 0
    (tmp_path / "out" / VAE).unlink()
    refused = run_command("weights", "verify", str(tmp_path / "out"))
    assert refused.code == 1
    assert VAE in refused.err
    said = json.loads(run_command("weights", "verify", str(tmp_path / "out"), "--json", "--quick").out)
    assert (said["sound"], [VAE in fault for fault in said["faults"]]) == (False, [True])
    (original / DIT).unlink()
    refused = run_command("weights", "convert", str(original), str(tmp_path / "out"))
    assert refused.code == 1
    assert refused.err.startswith("error: ")
    assert refused.err.count("\n") == 1


def test_the_full_size_model_is_described_without_memory() -> None:
    shapes = transformer_shapes(FULL_SIZE)
    assert sum(torch.Size(shape).numel() for shape in shapes.values()) > 12_800_000_000
    assert differences(shapes, shapes) == {}
    assert differences(shapes, {}) == {"missing": list(shapes)}
    assert summary({"missing": list(shapes)}) == f"missing: {', '.join(list(shapes)[:3])} ... ({len(shapes)} in all)"
