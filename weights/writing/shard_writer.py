"""Streaming from stored tensors to sharded safetensors: at no time more than a few buffers in memory.

A `Move` is one original tensor with the pieces it becomes. Each shard is written by one thread from its first byte to
its last, so both checksums (of what is read, of what is written) are made on the way.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import zlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from threading import Event

import torch
from torch import Tensor

from weights.disk import disk_errors
from weights.errors import BadValuesError, CheckpointError, WeightsError
from weights.originals.key_map import Piece
from weights.writing.crc32 import combine
from weights.writing.direct_file import DirectFile
from weights.writing.safetensors_file import list_safetensors, safetensors_header
from weights.writing.stored_tensor import FLOAT8, RowReader, StoredTensor, check_finite

SHARD_BYTES = 3_000_000_000
BUFFER_BYTES = 2**20  # small enough to stay in the processor's cache between reading, checking and writing
FLOAT8_OVERFLOW = 464.0  # half a step above 448, the largest float8_e4m3fn; torch's cast would saturate silently
THREADS = 4  # shards at a time: while some wait for the disk the others compute checksums

Progress = Callable[[int], None]
"""Called, from several threads, with the number of bytes just written."""


@dataclass(frozen=True, kw_only=True)
class Move:
    """An original tensor, the pieces it becomes and the dtype they are stored in."""

    source: StoredTensor
    pieces: tuple[Piece, ...]
    dtype: torch.dtype

    @classmethod
    def whole(cls, source: StoredTensor, name: str) -> Move:
        """The tensor unchanged under another name."""
        return cls(source=source, pieces=(Piece(name, ((0, source.rows),)),), dtype=source.dtype)

    def entries(self) -> Iterator[tuple[str, torch.dtype, tuple[int, ...]]]:
        """Name, dtype and shape of every piece."""
        for piece in self.pieces:
            rows = sum(stop - start for start, stop in piece.rows)
            yield piece.name, self.dtype, (rows, *self.source.shape[1:]) if self.source.shape else ()

    @property
    def nbytes(self) -> int:
        """Bytes written."""
        return self.source.nbytes // self.source.dtype.itemsize * self.dtype.itemsize


@dataclass(frozen=True, kw_only=True)
class WrittenFile:
    """What was written, as the conversion's record keeps it."""

    name: str
    size: int
    crc32: int


def write_shards(
    moves: Sequence[Move], folder: Path, *, stem: str, progress: Progress, shard_bytes: int = SHARD_BYTES
) -> list[WrittenFile]:
    """Write all pieces into `<stem>.safetensors`, or into numbered shards and `<stem>.safetensors.index.json`.

    Names and index are those of diffusers and transformers. Raises `BadValuesError` on NaN or infinity,
    `CheckpointError` when bytes do not match their checksum, `TargetError` when the disk is full or read-only. The
    first error stops all threads.
    """
    shards = _share_out(moves, shard_bytes)
    names = [
        f"{stem}-{number:05d}-of-{len(shards):05d}.safetensors" if len(shards) > 1 else f"{stem}.safetensors"
        for number in range(1, len(shards) + 1)
    ]
    stop = Event()
    with ThreadPoolExecutor(THREADS) as threads:
        futures = [
            threads.submit(_write_shard, shard, folder / name, progress=progress, stop=stop)
            for shard, name in zip(shards, names, strict=True)
        ]
        failures = [failure for failure in (future.exception() for future in futures) if failure is not None]
    if failures:
        raise next((failure for failure in failures if not isinstance(failure, _StoppedError)), failures[0])
    written = [future.result() for future in futures]
    if len(shards) > 1:
        places = {
            entry[0]: name for shard, name in zip(shards, names, strict=True) for m in shard for entry in m.entries()
        }
        total = sum(move.nbytes for move in moves)
        index = {"metadata": {"total_size": total}, "weight_map": dict(sorted(places.items()))}
        written.append(write_text(folder / f"{stem}.safetensors.index.json", json.dumps(index, indent=2)))
    return written


def scan_file(path: Path, *, copy: Path | None, progress: Progress) -> WrittenFile:
    """Read a safetensors file through: refuse NaN and infinity, record its checksum, write it to `copy` if given.

    Raises as `write_shards`, naming `path` for what is wrong with it.
    """
    stored = list_safetensors(path)
    size = path.stat().st_size
    with path.open("rb") as file:
        header = file.read(min((tensor.offset for tensor in stored.values()), default=size))
    crc = zlib.crc32(header)
    buffer = torch.empty(BUFFER_BYTES, dtype=torch.uint8)
    with disk_errors(copy or path), contextlib.ExitStack() as opened:
        written = None if copy is None else opened.enter_context(DirectFile(copy))

        def emit(chunk: Tensor) -> None:
            if written is not None:
                written.write(chunk)
            progress(chunk.numel())

        if written is not None:
            written.write(torch.frombuffer(bytearray(header), dtype=torch.uint8))
        for tensor in stored.values():
            crc = combine(crc, _stream(Move.whole(tensor, tensor.key), buffer, emit), tensor.nbytes)
    return WrittenFile(name=path.name, size=size, crc32=crc)


def write_text(path: Path, text: str) -> WrittenFile:
    """Write a small file to disk, durably. Raises `TargetError`."""
    with disk_errors(path), path.open("w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    return WrittenFile(name=path.name, size=path.stat().st_size, crc32=zlib.crc32(text.encode()))


class _StoppedError(WeightsError):
    """Another thread failed first."""


def _share_out(moves: Sequence[Move], shard_bytes: int) -> list[list[Move]]:
    """Equal shards of at most about `shard_bytes`, as many as keep all threads busy to the end."""
    total = sum(move.nbytes for move in moves)
    if total > shard_bytes:
        shard_bytes = math.ceil(total / (THREADS * math.ceil(total / (THREADS * shard_bytes))))
    shards: list[list[Move]] = [[]]
    filled = 0
    for move in moves:
        if shards[-1] and filled + move.nbytes // 2 > shard_bytes:
            shards.append([])
            filled = 0
        shards[-1].append(move)
        filled += move.nbytes
    return shards


def _write_shard(moves: Sequence[Move], path: Path, *, progress: Progress, stop: Event) -> WrittenFile:
    torch.set_num_threads(1)  # of this thread; the parallelism is over shards
    header = safetensors_header([entry for move in moves for entry in move.entries()])
    buffer = torch.empty(BUFFER_BYTES, dtype=torch.uint8)
    crc = zlib.crc32(header)
    try:
        with disk_errors(path), DirectFile(path) as file:

            def emit(chunk: Tensor) -> None:
                if stop.is_set():
                    raise _StoppedError(str(path))
                file.write(chunk)
                progress(chunk.numel())

            file.write(torch.frombuffer(bytearray(header), dtype=torch.uint8))
            for move in moves:
                crc = combine(crc, _stream(move, buffer, emit), move.nbytes)
    except BaseException:
        stop.set()
        raise
    return WrittenFile(name=path.name, size=file.size, crc32=crc)


def _stream(move: Move, buffer: Tensor, emit: Callable[[Tensor], None]) -> int:
    """Hand the pieces' bytes, in order, to `emit` (flat uint8); return their CRC-32.

    They are scanned for NaN, cast, and compared with the checksum the source's container recorded. Pieces in the order
    of their rows are the source's own bytes, so that one pass over them serves both checksums.
    """
    source = move.source
    ranges = [bounds for piece in move.pieces for bounds in piece.rows]
    same_bytes = ranges == sorted(ranges) and move.dtype == source.dtype
    if ranges != sorted(ranges):  # the swapped final layer: tens of MB, read in order once
        source = _in_memory(source)
    crc_read = crc_emitted = 0
    step = max(1, len(buffer) // max(source.row_bytes, 1))
    chunks = [(first, min(first + step, stop)) for start, stop in ranges for first in range(start, stop, step)]
    with RowReader(source) as reader:
        for first, last in chunks:
            raw = reader.read(first, last, buffer)
            crc_read = zlib.crc32(raw.numpy(), crc_read)
            values = raw.view(source.dtype)
            check_finite(values, source)
            if not same_bytes:
                raw = _cast(values, move).view(torch.uint8)
                crc_emitted = zlib.crc32(raw.numpy(), crc_emitted)
            emit(raw)
    _check_crc(source, crc_read)
    return crc_read if same_bytes else crc_emitted


def _in_memory(source: StoredTensor) -> StoredTensor:
    memory = source.load()
    _check_crc(source, zlib.crc32(memory.reshape(-1).view(torch.uint8).numpy()))
    return StoredTensor(key=source.key, path=source.path, dtype=source.dtype, shape=source.shape, memory=memory)


def _cast(values: Tensor, move: Move) -> Tensor:
    if move.dtype == FLOAT8 and values.numel() and max(-values.min().item(), values.max().item()) >= FLOAT8_OVERFLOW:
        raise BadValuesError(f"{move.source.path}: {move.source.key}: values beyond float8_e4m3fn's 448")
    return values.to(move.dtype)


def _check_crc(source: StoredTensor, crc: int) -> None:
    if source.crc is not None and source.crc != crc:
        raise CheckpointError(f"{source.path}: {source.key}: corrupt (its checksum does not match)")
