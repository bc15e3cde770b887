"""Moves -> sharded safetensors: one original tensor at a time and thread in memory, however large the shards are.

The files are written here and not by `safetensors.save_file`, which takes a whole shard at once, and whose errors do
not tell a full disk from others. The checksum of the file is made of the same pass.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from pathlib import Path

import torch
from huggingface_hub import split_state_dict_into_shards_factory
from torch import Tensor

from weights.reporter import Progress
from weights.writing.move import Move
from weights.writing.safetensors_file import safetensors_header
from weights.writing.written_file import WrittenFile, write_file

SHARD_BYTES = 3_000_000_000
THREADS = 4
"""Shards written at a time: some wait for the disk while others compute checksums."""


def write_shards(moves: Sequence[Move], folder: Path, *, stem: str, progress: Progress) -> list[WrittenFile]:
    """Write all pieces into `<stem>.safetensors`, or into numbered shards and `<stem>.safetensors.index.json`.

    Names and index are those of diffusers and transformers. Raises `BadValuesError` on NaN or infinity,
    `CheckpointError` when bytes do not match their checksum, `TargetError` when the disk is full or read-only. After
    the first error no other shard is begun.
    """
    split = split_state_dict_into_shards_factory(
        {str(number): move for number, move in enumerate(moves)},
        get_storage_size=lambda move: move.nbytes,
        filename_pattern=f"{stem}{{suffix}}.safetensors",
        max_shard_size=SHARD_BYTES,
    )
    shards = {name: [moves[int(number)] for number in numbers] for name, numbers in split.filename_to_tensors.items()}
    # Not more torch threads than ours: the work is checksums, scans and copies, one shard beside the other.
    with ThreadPoolExecutor(THREADS, initializer=torch.set_num_threads, initargs=(1,)) as threads:
        files = [
            threads.submit(write_file, folder / name, _contents(shard), progress=progress)
            for name, shard in shards.items()
        ]
        try:
            wait(files, return_when=FIRST_EXCEPTION)
        finally:
            threads.shutdown(cancel_futures=True)
    written = [file.result() for file in files]
    if split.is_sharded:
        weight_map = {key: name for name, shard in shards.items() for move in shard for key, _, _ in move.entries()}
        index = {"metadata": split.metadata, "weight_map": dict(sorted(weight_map.items()))}
        text = json.dumps(index, indent=2)
        written.append(write_file(folder / f"{stem}.safetensors.index.json", [text.encode()]))
    return written


def _contents(moves: Sequence[Move]) -> Iterator[bytes | memoryview]:
    yield safetensors_header([entry for move in moves for entry in move.entries()])
    for move in moves:
        for piece in move.convert():
            yield _bytes_of(piece)


def _bytes_of(tensor: Tensor) -> memoryview:
    return memoryview(tensor.reshape(-1).view(torch.uint8).numpy())
