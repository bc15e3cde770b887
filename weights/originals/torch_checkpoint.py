"""The tensors of a `.pt`/`.bin` file: listed without loading them, and without executing anything in it.

The zip format (PyTorch 1.6 and later) is loaded on the meta device: `torch.load` then only walks the pickle and tells
each storage's offset, from which the bytes are read later. (`torch.load(mmap=True)` maps the file as private memory,
which the kernel refuses for a file larger than the machine's memory, and compares no checksums.) Older files are one
pickle stream and must be loaded whole. Either way `weights_only=True`: a pickle that names anything but tensors and
plain containers is refused.
"""

from __future__ import annotations

import pickle
import re
import struct
import warnings
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from weights.errors import BadValuesError, CheckpointError, UnsafePickleError
from weights.writing.stored_tensor import StoredTensor

_DAMAGE = (
    *(RuntimeError, ValueError, TypeError, LookupError, AttributeError, ArithmeticError, AssertionError, EOFError),
    *(OSError, MemoryError, ImportError, struct.error, zipfile.BadZipFile, pickle.PickleError),
)
"""What a flipped byte makes zipfile, pickle and torch raise, depending on where it is."""

MAX_LEGACY_BYTES = 4_000_000_000
"""Of a file that must be loaded whole; the models were published long after that format."""

WRAPPERS = ("module", "state_dict", "model")
"""Keys under which trainers put the state dict; peeled off, nested ones too."""


def list_torch_checkpoint(path: Path) -> dict[str, StoredTensor]:
    """Every tensor of the state dict in `path`, by key, in file order.

    Raises `CheckpointError` for a file that is truncated, corrupt, compressed or no checkpoint, for a legacy file
    that is too large, and for entries that are not tensors; `UnsafePickleError` for one that holds code.
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
        return {key: _locate(key, tensor, path, records) for key, tensor in state_dict.items()}
    except _DAMAGE as error:
        raise _damaged(path, error) from error


def _locate(key: str, tensor: Tensor, path: Path, records: Mapping[int, zipfile.ZipInfo]) -> StoredTensor:
    """Where the bytes of a meta tensor are: all from its first element to its last, gaps between them included."""
    storage, itemsize = tensor.untyped_storage(), tensor.dtype.itemsize
    steps = sum((n - 1) * stride for n, stride in zip(tensor.shape, tensor.stride(), strict=True))
    start, count = tensor.storage_offset() * itemsize, (steps + 1) * itemsize if tensor.numel() else 0
    record = records.get(storage._checkpoint_offset)
    if record is None or record.file_size < max(storage.nbytes(), start + count):
        raise CheckpointError(f"{path}: {key}: its bytes are not in the archive (corrupt)")
    # A zero means that the file was saved with checksums turned off.
    crc = record.CRC or None if count == record.file_size else None

    def read() -> Tensor:
        raw = _read_bytes(path, storage._checkpoint_offset + start, count, key)
        if crc is not None and zlib.crc32(raw.numpy()) != crc:
            raise CheckpointError(f"{path}: {key}: corrupt (its checksum does not match)")
        return raw.view(tensor.dtype).as_strided(tensor.shape, tensor.stride(), 0)

    return StoredTensor(key=key, path=path, dtype=tensor.dtype, shape=tuple(tensor.shape), read=read)


def _read_bytes(path: Path, offset: int, count: int, key: str) -> Tensor:
    raw = torch.empty(count, dtype=torch.uint8)
    try:
        with path.open("rb") as file:
            file.seek(offset)
            read = file.readinto(memoryview(raw.numpy()))
    except OSError as error:
        raise CheckpointError(f"{path}: {key}: cannot be read ({error.strerror})") from error
    if read < count:
        raise CheckpointError(f"{path}: {key}: the file ends inside this tensor (truncated?)")
    return raw


def _zip_records(path: Path) -> dict[int, zipfile.ZipInfo]:
    """The archive's records by the offset of their first data byte."""
    try:
        with zipfile.ZipFile(path) as archive, path.open("rb") as file:
            records = {}
            for record in archive.infolist():
                if record.compress_type != zipfile.ZIP_STORED:
                    raise CheckpointError(f"{path}: {record.filename}: compressed; save the checkpoint again")
                file.seek(record.header_offset + 26)  # local header: 30 bytes, its name and extra lengths at 26 and 28
                name, extra = struct.unpack("<HH", file.read(4))
                records[record.header_offset + 30 + name + extra] = record
            return records
    except _DAMAGE as error:
        raise _damaged(path, error) from error


def _load_legacy(path: Path) -> dict[str, StoredTensor]:
    size = path.stat().st_size
    if size > MAX_LEGACY_BYTES:
        raise CheckpointError(
            f"{path}: PyTorch's format from before 1.6, which must be loaded whole: {size / 1e9:.1f} GB, at most "
            f"{MAX_LEGACY_BYTES / 1e9:g} GB are taken; save it again with a current torch.save"
        )
    tensors = _state_dict_of(_load(path, device="cpu"), path)
    return {key: StoredTensor.in_memory(key, tensor.detach(), path) for key, tensor in tensors.items()}


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
