"""Checkpoints of the real key names and shapes with made-up values: to measure and prove things without the model.

Values are normal with deviation 0.02, cut from one block, random but always the same, from a different offset for every
tensor; writing is all it costs, and no more memory than the block.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from weights.originals.key_map import original_shapes
from weights.originals.structure import transformer_shapes
from weights.reporter import ignore
from weights.writing.component import json_text
from weights.writing.move import Move
from weights.writing.shard_writer import write_shards
from weights.writing.stored_tensor import StoredTensor

_BLOCK = 2**25  # values; 64 MiB of bf16
_STEP = 999_983  # a prime, so that tensors do not begin alike


def write_original_dit(path: Path, config: Mapping[str, Any]) -> int:
    """Write an original DiT checkpoint (`{"module": ...}`, bf16, zip `.pt`) of `config`'s sizes; returns its bytes."""
    shapes = original_shapes(transformer_shapes(config), config)
    empty = {key: torch.empty(shape, dtype=torch.bfloat16) for key, shape in shapes.items()}  # never touched: no memory
    with torch.serialization.skip_data():
        torch.save({"module": empty}, path)
    del empty
    block = _random_block()
    with path.open("r+b") as file:
        for number, tensor in enumerate(torch.load(path, map_location="meta", weights_only=True)["module"].values()):
            file.seek(tensor.untyped_storage()._checkpoint_offset)
            file.write(memoryview(_view(block, tensor.numel(), number).view(torch.uint8).numpy()))
        file.flush()
        os.fsync(file.fileno())
    return path.stat().st_size


def write_converted_transformer(folder: Path, config: Mapping[str, Any]) -> int:
    """Write a converted `transformer/` (sharded safetensors, bf16, config.json); returns the bytes of its tensors."""
    folder.mkdir(parents=True)
    block = _random_block()
    moves = []
    for number, (name, shape) in enumerate(transformer_shapes(config).items()):
        memory = _view(block, math.prod(shape), number).view(shape)
        moves.append(Move.whole(StoredTensor.in_memory(name, memory, folder), name))
    write_shards(moves, folder, stem="diffusion_pytorch_model", progress=ignore)
    (folder / "config.json").write_text(json_text({"_class_name": "HunyuanVideoTransformer3DModel", **config}))
    return sum(move.nbytes for move in moves)


def tensor_bytes(shapes: Mapping[str, tuple[int, ...]]) -> int:
    """Bytes of bf16 tensors of these shapes."""
    return 2 * sum(math.prod(shape) for shape in shapes.values())


def _random_block() -> Tensor:
    """Twice the largest tensor of the full-size model, so that any of them can begin anywhere in the first half."""
    generator = torch.Generator().manual_seed(0)
    half = torch.randn(_BLOCK, generator=generator).mul_(0.02).to(torch.bfloat16)
    return torch.cat([half, half, half, half])


def _view(block: Tensor, count: int, number: int) -> Tensor:
    start = number * _STEP % _BLOCK
    return block[start : start + count]
