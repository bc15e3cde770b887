"""Whatever byte of a file is damaged, it is refused as damaged (or, in a tensor without checksum, not noticed here)."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from weights.errors import CheckpointError, WeightsError
from weights.originals.torch_checkpoint import list_torch_checkpoint, load_scale_map
from weights.writing.safetensors_file import list_safetensors, safetensors_header

TENSORS = {"a.weight": torch.arange(12.0).reshape(4, 3), "b.bias": torch.ones(5, dtype=torch.bfloat16)}


def read_checkpoint(path: Path) -> None:
    for tensor in list_torch_checkpoint(path).values():
        tensor.read()


def read_safetensors(path: Path) -> None:
    for tensor in list_safetensors(path).values():
        tensor.read()


@pytest.mark.parametrize("kind", ["zip", "legacy", "safetensors"])
def test_flipped_bits_raise_nothing_but_our_own_errors(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "x"
    if kind == "safetensors":
        save_file(TENSORS, path)
    else:
        torch.save({"module": TENSORS}, path, _use_new_zipfile_serialization=kind == "zip")
    content = path.read_bytes()
    draw = random.Random(0)
    refusals = 0
    for _ in range(700):
        damaged = bytearray(content)
        for _ in range(draw.choice([1, 1, 2, 5])):
            damaged[draw.randrange(len(damaged))] ^= 1 << draw.randrange(8)
        path.write_bytes(damaged)
        for read in (read_safetensors,) if kind == "safetensors" else (read_checkpoint, load_scale_map):
            try:
                read(path)
            except WeightsError as error:
                assert str(path) in str(error)
                refusals += 1
    assert refusals > 300


def test_a_tensor_that_reaches_beyond_its_storage(tmp_path: Path) -> None:
    storage = torch.arange(4.0)
    torch.save({"a": storage, "b": torch.ones(100)}, tmp_path / "x")
    content = (tmp_path / "x").read_bytes()
    start = content.index(b"K\x04\x85")  # the pickle's size of `a`: a tuple of one byte
    (tmp_path / "x").write_bytes(content[:start] + b"K\x09\x85" + content[start + 3 :])
    with pytest.raises(CheckpointError):
        list_torch_checkpoint(tmp_path / "x")


def header(**entries: Any) -> bytes:
    text = json.dumps(entries).encode()
    return len(text).to_bytes(8, "little") + text


def entry(dtype: Any = "F32", shape: Any = (2,), offsets: Any = (0, 8)) -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets}


@pytest.mark.parametrize(
    "wrong",
    [
        entry(offsets=("0", "8")),
        entry(offsets=(0.0, 8.0)),
        entry(offsets=(False, 8)),
        entry(dtype=["F32"]),
        entry(dtype=None),
        entry(shape=(-1, -2)),
        entry(shape="2"),
        entry(shape=(2.0,)),
        entry(offsets=(-8, 0)),
        entry(offsets=(8, 0)),
        entry(offsets=(8, 16)),
        entry(offsets=None),
        {"dtype": "F32"},
        7,
    ],
)
def test_entries_that_make_no_sense(tmp_path: Path, wrong: Any) -> None:
    (tmp_path / "x").write_bytes(header(a=wrong) + bytes(8))
    with pytest.raises(CheckpointError, match="corrupt"):
        list_safetensors(tmp_path / "x")


def test_tensors_that_overlap_or_leave_gaps(tmp_path: Path) -> None:
    for second in ((4, 12), (16, 24)):
        (tmp_path / "x").write_bytes(header(a=entry(), b=entry(offsets=second)) + bytes(second[1]))
        with pytest.raises(CheckpointError, match=r"corrupt.*`b`"):
            list_safetensors(tmp_path / "x")


def test_a_header_longer_than_the_format_allows_is_not_read(tmp_path: Path) -> None:
    with (tmp_path / "x").open("wb") as file:
        file.write((200_000_000).to_bytes(8, "little"))
        file.truncate(300_000_000)
    with pytest.raises(CheckpointError, match="corrupt"):
        list_safetensors(tmp_path / "x")


def test_tensors_of_no_elements_are_no_damage(tmp_path: Path) -> None:
    entries = [("a", torch.float32, (0, 3)), ("b", torch.float32, (2,)), ("c", torch.float32, (0,))]
    (tmp_path / "x").write_bytes(safetensors_header(entries) + bytes(8))
    assert [tensor.shape for tensor in list_safetensors(tmp_path / "x").values()] == [(0, 3), (2,), (0,)]
