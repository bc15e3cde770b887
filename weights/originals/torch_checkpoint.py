"""What lies where in a `.pt`/`.bin` file, without loading it and without executing anything in it.

The zip format (PyTorch 1.6 and later) is read on the meta device: `torch.load` then only walks the pickle and tells
each storage's offset, from which the bytes are read later. Older files are one pickle stream and must be loaded
whole. Either way `weights_only=True`: a pickle that names anything but tensors and plain containers is refused.
"""

from __future__ import annotations

import pickle
import re
import struct
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from weights.available_memory import available_memory
from weights.errors import BadValuesError, CheckpointError, UnsafePickleError
from weights.writing.stored_tensor import StoredTensor

_DAMAGE = (
    *(RuntimeError, ValueError, TypeError, LookupError, AttributeError, ArithmeticError, AssertionError, EOFError),
    *(OSError, MemoryError, ImportError, struct.error, zipfile.BadZipFile, pickle.PickleError),
)
"""What a flipped byte makes zipfile, pickle and torch raise, depending on where it is."""

WRAPPERS = ("module", "state_dict", "model")
"""Keys under which trainers put the state dict; peeled off, nested ones too."""


def list_torch_checkpoint(path: Path) -> dict[str, StoredTensor]:
    """Every tensor of the state dict in `path`, by key, in file order.

    Raises `CheckpointError` for a file that is truncated, corrupt, compressed or no checkpoint, for a legacy file
    larger than the memory left, and for entries that are not tensors; `UnsafePickleError` for one that holds code.
    """
    try:
        with path.open("rb") as file:
            magic = file.read(4)
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({error.strerror})") from error
    if magic == b"PK\x03\x04":
        return _list_zip(path)
    if magic[:1] == b"\x80":
        return _load_legacy(path)
    raise CheckpointError(f"{path}: not a PyTorch checkpoint (it starts with {magic!r})")


def load_scale_map(path: Path) -> dict[str, Tensor]:
    """The fp8 map: original module path -> scale, fp32. Raises as `list_torch_checkpoint`."""
    if not path.is_file():
        raise CheckpointError(f"{path}: missing; fp8 weights are of no use without their scales")
    scales = {}
    for key, value in _peeled(_load(path, device="cpu"), path).items():
        if not isinstance(value, Tensor | float | int) or (isinstance(value, Tensor) and not _is_plain(value)):
            raise CheckpointError(f"{path}: {key}: a {type(value).__name__}, not a scale")
        scales[key] = torch.as_tensor(value, dtype=torch.float32)
        if not bool((scales[key] > 0).all()) or not bool(scales[key].isfinite().all()):
            raise BadValuesError(f"{path}: {key}: a scale must be a positive number")
    return scales


def _list_zip(path: Path) -> dict[str, StoredTensor]:
    records = _zip_records(path)
    state_dict = _state_dict_of(_load(path, device="meta"), path)
    try:
        return {key: _place(key, tensor, path, records) for key, tensor in state_dict.items()}
    except _DAMAGE as error:
        raise _damaged(path, error) from error


def _place(key: str, tensor: Tensor, path: Path, records: Mapping[int, zipfile.ZipInfo]) -> StoredTensor:
    storage = tensor.untyped_storage()
    record = records.get(storage._checkpoint_offset)
    last = tensor.storage_offset() + sum((n - 1) * step for n, step in zip(tensor.shape, tensor.stride(), strict=True))
    end = (last + 1) * tensor.dtype.itemsize if tensor.numel() else 0
    if record is None or record.file_size < max(storage.nbytes(), end):
        raise CheckpointError(f"{path}: {key}: its bytes are not in the archive (corrupt)")
    whole = StoredTensor(
        key=key,
        path=path,
        dtype=tensor.dtype,
        shape=tuple(tensor.shape),
        offset=storage._checkpoint_offset + tensor.storage_offset() * tensor.dtype.itemsize,
        # A zero means that the file was saved with checksums turned off.
        crc=record.CRC or None if tensor.nbytes == record.file_size else None,
    )
    return whole if tensor.is_contiguous() else _gather(whole, tensor, record)


def _gather(whole: StoredTensor, layout: Tensor, record: zipfile.ZipInfo) -> StoredTensor:
    """A tensor stored with gaps or transposed, straightened in memory."""
    count = record.file_size // layout.dtype.itemsize
    start = whole.offset - layout.storage_offset() * layout.dtype.itemsize
    storage = StoredTensor(key=whole.key, path=whole.path, dtype=whole.dtype, shape=(count,), offset=start).load()
    tensor = storage.as_strided(layout.shape, layout.stride(), layout.storage_offset()).contiguous()
    return StoredTensor(key=whole.key, path=whole.path, dtype=whole.dtype, shape=whole.shape, memory=tensor)


def _zip_records(path: Path) -> dict[int, zipfile.ZipInfo]:
    """The archive's records by the offset of their first data byte."""
    try:
        with zipfile.ZipFile(path) as archive, path.open("rb") as file:
            records = {}
            for record in archive.infolist():
                if record.compress_type != zipfile.ZIP_STORED:
                    raise CheckpointError(f"{path}: {record.filename}: compressed; save the checkpoint again")
                file.seek(record.header_offset + 26)  # local header: 30 bytes, its name and extra lengths at 26 and 28
                lengths = file.read(4)
                name, extra = int.from_bytes(lengths[:2], "little"), int.from_bytes(lengths[2:], "little")
                records[record.header_offset + 30 + name + extra] = record
            return records
    except _DAMAGE as error:
        raise _damaged(path, error) from error


def _load_legacy(path: Path) -> dict[str, StoredTensor]:
    size, free = path.stat().st_size, available_memory()
    if size * 1.2 > free:
        raise CheckpointError(
            f"{path}: PyTorch's format from before 1.6, which must be loaded whole: it needs {size / 1e9:.1f} GB of "
            f"memory and {free / 1e9:.1f} GB are free; save it again with a current torch.save"
        )
    return {
        key: StoredTensor(
            key=key, path=path, dtype=tensor.dtype, shape=tuple(tensor.shape), memory=tensor.detach().contiguous()
        )
        for key, tensor in _state_dict_of(_load(path, device="cpu"), path).items()
    }


def _load(path: Path, *, device: str) -> Any:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about pickle protocols: what cannot be read raises below
            return torch.load(path, map_location=device, weights_only=True)
    except pickle.UnpicklingError as error:
        culprit = re.search(r"GLOBAL (\S+)", str(error))
        if culprit:
            raise UnsafePickleError(f"{path}: holds code ({culprit[1]}), refused and not executed") from error
        raise CheckpointError(f"{path}: not a checkpoint of tensors alone; nothing in it was executed") from error
    except _DAMAGE as error:
        raise _damaged(path, error) from error


def _damaged(path: Path, error: Exception) -> CheckpointError:
    reason = (str(error).strip() or type(error).__name__).splitlines()[0][:120]
    return CheckpointError(f"{path}: truncated or corrupt ({reason})")


def _peeled(loaded: Any, path: Path) -> Mapping[str, Any]:
    while isinstance(loaded, Mapping):
        inner = next((loaded[key] for key in WRAPPERS if isinstance(loaded.get(key), Mapping)), None)
        if inner is None:
            break
        loaded = inner
    if not isinstance(loaded, Mapping) or not loaded or not all(isinstance(key, str) for key in loaded):
        raise CheckpointError(f"{path}: holds no state dict")
    return loaded


def _state_dict_of(loaded: Any, path: Path) -> dict[str, Tensor]:
    state_dict = _peeled(loaded, path)
    for key, value in state_dict.items():
        if not isinstance(value, Tensor) or not _is_plain(value):
            raise CheckpointError(f"{path}: {key}: a {type(value).__name__}, not a tensor")
    return dict(state_dict)


def _is_plain(tensor: Tensor) -> bool:
    """Rows of real numbers: neither sparse nor quantised nor complex."""
    return tensor.layout == torch.strided and not tensor.is_quantized and not tensor.is_complex()
