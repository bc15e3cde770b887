"""What lies where in a safetensors file: 8 bytes of header length, a JSON header, the tensors' bytes."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import torch

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
MAX_HEADER = 100_000_000
"""The format's own limit, in bytes: a length beyond it is damage, and would be read into memory."""


def list_safetensors(path: Path) -> dict[str, StoredTensor]:
    """Every tensor of the file, by key, in file order. Raises `CheckpointError` if it is truncated or corrupt."""
    length, header, size = _read_header(path)
    stored = []
    for key, entry in header.items():
        if key != "__metadata__":
            dtype, shape, start = _read_entry(entry, f"{path}: {key}")
            stored.append(StoredTensor(key=key, path=path, dtype=dtype, shape=shape, offset=8 + length + start))
    end = 8 + length
    for tensor in sorted(stored, key=lambda tensor: (tensor.offset, tensor.nbytes)):
        if tensor.offset != end:
            raise CheckpointError(f"{path}: {tensor.key}: does not begin where the tensor before it ends (corrupt)")
        end += tensor.nbytes
    if end != size:
        raise CheckpointError(f"{path}: truncated or corrupt ({size} bytes, its header says {end})")
    return {tensor.key: tensor for tensor in sorted(stored, key=lambda tensor: tensor.offset)}


def _read_header(path: Path) -> tuple[int, dict[str, Any], int]:
    """The header's length, the header, the file's size."""
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            size = path.stat().st_size
            header = json.loads(file.read(length)) if 0 < length <= min(size - 8, MAX_HEADER) else None
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({error.strerror})") from error
    except (ValueError, RecursionError):
        header = None
    if not isinstance(header, dict):
        raise CheckpointError(f"{path}: truncated or corrupt (no safetensors header)")
    return length, header, size


def _read_entry(entry: Any, what: str) -> tuple[torch.dtype, tuple[int, ...], int]:
    """Dtype, shape and first byte."""
    corrupt = CheckpointError(f"{what}: corrupt entry in the safetensors header")
    try:
        name, shape, (start, stop) = entry["dtype"], entry["shape"], entry["data_offsets"]
    except (KeyError, TypeError, ValueError):
        raise corrupt from None
    if not isinstance(name, str) or not isinstance(shape, list):
        raise corrupt
    if any(not isinstance(number, int) or isinstance(number, bool) or number < 0 for number in (*shape, start, stop)):
        raise corrupt
    if name not in DTYPES:
        raise CheckpointError(f"{what}: dtype {name} is not supported")
    if math.prod(shape) * DTYPES[name].itemsize != stop - start:
        raise corrupt
    return DTYPES[name], tuple(shape), start


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
