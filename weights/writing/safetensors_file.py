"""Safetensors: the library's reader as `StoredTensor`s, and the header of a file that is written tensor by tensor."""

from __future__ import annotations

import json
import math
from functools import partial
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from weights.errors import CheckpointError
from weights.writing.stored_tensor import StoredTensor

DTYPES: dict[str, torch.dtype] = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
DTYPE_NAMES = {dtype: name for name, dtype in DTYPES.items()}


def list_safetensors(path: Path) -> dict[str, StoredTensor]:
    """Every tensor of the file, by key, in file order. Raises `CheckpointError` if it is truncated or corrupt."""
    try:
        # "pread": the kernel refuses to map a file larger than its memory the way "mmap" does it.
        file = safe_open(path, "pt", backend="pread")
        slices = {key: file.get_slice(key) for key in file.offset_keys()}
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({error})") from error
    except SafetensorError as error:
        raise CheckpointError(f"{path}: truncated or corrupt ({error})") from error
    stored = {}
    for key, entry in slices.items():
        if entry.get_dtype() not in DTYPES:
            raise CheckpointError(f"{path}: {key}: dtype {entry.get_dtype()} is not supported")
        stored[key] = StoredTensor(
            key=key,
            path=path,
            dtype=DTYPES[entry.get_dtype()],
            shape=tuple(entry.get_shape()),
            read=partial(_read, file, key, path),
        )
    return stored


def _read(file: safe_open, key: str, path: Path) -> Tensor:
    try:
        return file.get_tensor(key)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{path}: {key}: cannot be read ({error})") from error


def safetensors_header(entries: list[tuple[str, torch.dtype, tuple[int, ...]]]) -> bytes:
    """Header of a file whose tensors (name, dtype, shape) follow in this order; padded to 8 bytes."""
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    position = 0
    for name, dtype, shape in entries:
        size = math.prod(shape) * dtype.itemsize
        header[name] = {"dtype": DTYPE_NAMES[dtype], "shape": list(shape), "data_offsets": [position, position + size]}
        position += size
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text
