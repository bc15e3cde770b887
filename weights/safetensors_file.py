"""What lies where in a safetensors file: 8 bytes of header length, a JSON header, the tensors' bytes."""

from __future__ import annotations

import json
import math
from pathlib import Path

import torch

from weights.errors import CheckpointError
from weights.stored_tensor import StoredTensor

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
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            size = path.stat().st_size
            header = json.loads(file.read(length)) if 0 < length <= size - 8 else None
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({error.strerror})") from error
    except ValueError:
        header = None
    if not isinstance(header, dict):
        raise CheckpointError(f"{path}: truncated or corrupt (no safetensors header)")
    stored, end = [], 8 + length
    for key, entry in header.items():
        if key == "__metadata__":
            continue
        try:
            dtype, shape, (start, stop) = entry["dtype"], tuple(entry["shape"]), entry["data_offsets"]
        except (KeyError, TypeError, ValueError):
            raise CheckpointError(f"{path}: {key}: corrupt entry in the safetensors header") from None
        if dtype not in DTYPES:
            raise CheckpointError(f"{path}: {key}: dtype {dtype} is not supported")
        if math.prod(shape) * DTYPES[dtype].itemsize != stop - start:
            raise CheckpointError(f"{path}: {key}: corrupt entry in the safetensors header")
        stored.append(StoredTensor(key=key, path=path, dtype=DTYPES[dtype], shape=shape, offset=8 + length + start))
        end = max(end, 8 + length + stop)
    if end != size:
        raise CheckpointError(f"{path}: truncated or corrupt ({size} bytes, its header says {end})")
    return {tensor.key: tensor for tensor in sorted(stored, key=lambda tensor: tensor.offset)}


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
