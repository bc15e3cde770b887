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
from typer.testing import CliRunner

from weights.commands import app
from weights.plan_transformer import FULL_SIZE
from weights.staging import MARKER
from weights.structure import differences, transformer_shapes
from weights.verify import verify

DIT = "models/hunyuancustom_720P/mp_rank_00_model_states.pt"
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
    save_file(weights | {"stranger": torch.zeros(1)}, converted / VAE)
    rerecord(converted, VAE)
    faults = " ".join(verify(converted))
    for words in ("missing: quant_conv.bias", "left over: stranger", "decoder.conv_in.conv.bias [3] instead of [16]"):
        assert words in faults


def test_originals_that_cannot_be_converted_are_named(original: Path) -> None:
    (original / DIT).write_bytes((original / DIT).read_bytes()[:-100])
    assert any(DIT in fault for fault in verify(original))


def test_a_folder_that_is_neither(tmp_path: Path) -> None:
    assert "missing" in verify(tmp_path)[0]
    (tmp_path / "model_index.json").touch()
    assert "not made by" in verify(tmp_path)[0]


def test_the_command_exits_with_1_and_names_the_file(original: Path, tmp_path: Path) -> None:
    runner = CliRunner()
    done = runner.invoke(app, ["convert", str(original), str(tmp_path / "out")])
    assert done.exit_code == 0
    assert "116 tensors of the transformer became 152" in done.stdout
    assert runner.invoke(app, ["verify", str(tmp_path / "out"), "--quick"]).exit_code == 0
    (tmp_path / "out" / VAE).unlink()
    refused = runner.invoke(app, ["verify", str(tmp_path / "out")])
    assert refused.exit_code == 1
    assert VAE in refused.stderr
    (original / DIT).unlink()
    refused = runner.invoke(app, ["convert", str(original), str(tmp_path / "out")])
    assert refused.exit_code == 1
    assert refused.stderr.startswith("error: ")
    assert refused.stderr.count("\n") == 1


def test_the_full_size_model_is_described_without_memory() -> None:
    shapes = transformer_shapes(FULL_SIZE)
    assert sum(torch.Size(shape).numel() for shape in shapes.values()) > 12_800_000_000
    assert differences(shapes, shapes) == []
    many = differences(shapes, {})
    assert many == [f"missing: {', '.join(list(shapes)[:3])} ... ({len(shapes)} in all)"]
