"""Bytes arrive as given, whatever their sizes and whatever the file system refuses; checksums join as zlib's do."""

from __future__ import annotations

import errno
import fcntl
import os
import zlib
from pathlib import Path

import pytest
import torch

from weights.writing import direct_file
from weights.writing.crc32 import combine
from weights.writing.direct_file import DirectFile


@pytest.mark.parametrize("sizes", [[0], [1], [4096], [4095, 2], [10_000, 0, 7, 8192]])
def test_every_byte_arrives(tmp_path: Path, sizes: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(direct_file, "BUFFER_BYTES", 8192)
    parts = [torch.randint(0, 256, (size,), dtype=torch.uint8) for size in sizes]
    with DirectFile(tmp_path / "x") as file:
        for part in parts:
            file.write(part)
    assert (tmp_path / "x").read_bytes() == torch.cat(parts).numpy().tobytes()
    assert file.size == sum(sizes)


def test_a_direct_write_that_is_refused_goes_through_the_page_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = os.write

    def refusing(handle: int, view: memoryview) -> int:
        if fcntl.fcntl(handle, fcntl.F_GETFL) & os.O_DIRECT:
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        return write(handle, view)

    data = torch.arange(5000).to(torch.uint8)
    with monkeypatch.context() as patched:
        patched.setattr(os, "write", refusing)
        with DirectFile(tmp_path / "x") as file:
            file.write(data)
    assert (tmp_path / "x").read_bytes() == data.numpy().tobytes()


@pytest.mark.parametrize("length", [0, 1, 7, 4096, 1_000_003])
def test_checksums_of_parts_join(length: int) -> None:
    first, second = os.urandom(99), os.urandom(length)
    assert combine(zlib.crc32(first), zlib.crc32(second), length) == zlib.crc32(first + second)
