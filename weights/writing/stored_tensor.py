"""A tensor that lies in a file (or, for formats that allow nothing better, in memory), readable by rows.

Rows are dim 0; a tensor of no dimensions is one row. Bytes are little-endian and contiguous, as both formats store
them.
"""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from io import FileIO
from pathlib import Path

import torch
from torch import Tensor

from weights.errors import BadValuesError, CheckpointError

FLOAT8 = torch.float8_e4m3fn
PREFETCH_BYTES = 32 * 2**20


@dataclass(frozen=True, kw_only=True)
class StoredTensor:
    """Where a tensor's bytes are. `crc` is the CRC-32 its container records for exactly these bytes, if any."""

    key: str
    path: Path
    dtype: torch.dtype
    shape: tuple[int, ...]
    offset: int = 0
    crc: int | None = None
    memory: Tensor | None = None

    @property
    def rows(self) -> int:
        """Length of dim 0; 1 for a scalar."""
        return self.shape[0] if self.shape else 1

    @property
    def nbytes(self) -> int:
        """Bytes of the whole tensor."""
        return math.prod(self.shape) * self.dtype.itemsize

    @property
    def row_bytes(self) -> int:
        """Bytes of one row."""
        return self.nbytes // max(self.rows, 1)

    def load(self) -> Tensor:
        """The whole tensor in memory."""
        with RowReader(self) as reader:
            return reader.read(0, self.rows).view(self.dtype).reshape(self.shape)


class RowReader:
    """Context manager that reads rows of one tensor, asking the system to read on ahead of them."""

    def __init__(self, stored: StoredTensor) -> None:
        self._stored = stored
        self._file: FileIO | None = None
        self._ahead = stored.offset  # everything before this byte has been asked for

    def __enter__(self) -> RowReader:
        if self._stored.memory is None:
            try:
                self._file = self._stored.path.open("rb", buffering=0)
            except OSError as error:
                raise self._unreadable(error) from error
        return self

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            self._file.close()

    def read(self, start: int, stop: int, buffer: Tensor | None = None) -> Tensor:
        """Rows `start:stop` as a flat uint8 tensor, read into the head of `buffer` (uint8) if they fit there.

        Raises `CheckpointError` when the file ends early or cannot be read.
        """
        stored = self._stored
        first, count = start * stored.row_bytes, (stop - start) * stored.row_bytes
        if stored.memory is not None:
            flat = stored.memory.reshape(-1).view(torch.uint8) if stored.nbytes else torch.empty(0, dtype=torch.uint8)
            return flat[first : first + count]
        fits = buffer is not None and count <= len(buffer)
        target = buffer[:count] if buffer is not None and fits else torch.empty(count, dtype=torch.uint8)
        try:
            self._fill(memoryview(target.numpy()), stored.offset + first)
        except OSError as error:
            raise self._unreadable(error) from error
        return target

    def _fill(self, view: memoryview, position: int) -> None:
        assert self._file is not None  # noqa: S101 - entered
        handle = self._file.fileno()
        if position + len(view) > self._ahead - PREFETCH_BYTES // 2:
            # Beyond this tensor's end too: what follows in the file is mostly what is read next.
            os.posix_fadvise(handle, self._ahead, PREFETCH_BYTES, os.POSIX_FADV_WILLNEED)
            self._ahead += PREFETCH_BYTES
        while view:
            read = os.preadv(handle, [view], position)
            if read == 0:
                stored = self._stored
                raise CheckpointError(f"{stored.path}: {stored.key}: the file ends inside this tensor (truncated?)")
            view, position = view[read:], position + read

    def _unreadable(self, error: OSError) -> CheckpointError:
        return CheckpointError(f"{self._stored.path}: {self._stored.key}: cannot be read ({error.strerror})")


def check_finite(values: Tensor, stored: StoredTensor) -> None:
    """Raise `BadValuesError` if `values` (any shape, part of `stored`) hold NaN or infinity.

    The extremes of a tensor are finite exactly when all of it is, and `aminmax` is many times faster than `isfinite`.
    """
    if not values.dtype.is_floating_point or not values.numel():
        return
    if values.dtype == FLOAT8:  # no arithmetic on it; NaN is 0x7f or 0xff, and there is no infinity
        bad = bool((values.view(torch.uint8) & 0x7F).max() == 0x7F)
    else:
        low, high = torch.aminmax(values)
        bad = not (math.isfinite(low.item()) and math.isfinite(high.item()))
    if bad:
        raise BadValuesError(f"{stored.path}: {stored.key}: holds NaN or infinity")
