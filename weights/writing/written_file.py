"""Files written durably, and what the conversion's record keeps of them."""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from weights.disk import disk_errors
from weights.errors import CheckpointError
from weights.reporter import Progress, ignore

_CHUNK = 8 * 2**20


@dataclass(frozen=True, kw_only=True)
class WrittenFile:
    """`name` is relative to the converted folder."""

    name: str
    size: int
    crc32: int


def write_file(path: Path, parts: Iterable[bytes | memoryview], *, progress: Progress = ignore) -> WrittenFile:
    """Write `parts` one after the other, durably. Raises `TargetError`, and what `parts` raises."""
    size = crc = 0
    with disk_errors(path), path.open("wb") as file:
        for part in parts:
            file.write(part)
            crc = zlib.crc32(part, crc)
            size += len(part)
            progress(len(part))
        file.flush()
        os.fsync(file.fileno())
    return WrittenFile(name=path.name, size=size, crc32=crc)


def checksum(path: Path, progress: Progress = ignore) -> int:
    """CRC-32 of a whole file. Raises `CheckpointError`."""
    crc = 0
    for chunk in chunks_of(path):
        crc = zlib.crc32(chunk, crc)
        progress(len(chunk))
    return crc


def chunks_of(path: Path) -> Iterator[bytes]:
    """A file's bytes. Raises `CheckpointError`."""
    try:
        with path.open("rb") as file:
            while chunk := file.read(_CHUNK):
                yield chunk
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({error.strerror})") from error
