"""A tensor that lies in a file (or, for formats that allow nothing better, in memory), readable by rows.

Rows are dim 0; a tensor of no dimensions is one row. Bytes are little-endian and contiguous, as both formats store
them.
"""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from weights.errors import BadValuesError, CheckpointError

FLOAT8 = torch.float8_e4m3fn


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

    def read_bytes(self, start: int, stop: int, buffer: Tensor | None = None) -> Tensor:
        """Rows `start:stop` as a flat uint8 tensor, read into the head of `buffer` (uint8) when there is one.

        Raises `CheckpointError` when the file ends early.
        """
        count = (stop - start) * self.row_bytes
        if self.memory is not None:
            flat = self.memory.reshape(-1).view(torch.uint8) if self.nbytes else torch.empty(0, dtype=torch.uint8)
            return flat[start * self.row_bytes :][:count]
        target = torch.empty(count, dtype=torch.uint8) if buffer is None else buffer[:count]
        view = memoryview(target.numpy())
        done, position = 0, self.offset + start * self.row_bytes
        try:
            with self.path.open("rb", buffering=0) as file:
                while done < count:
                    read = os.preadv(file.fileno(), [view[done:]], position + done)
                    if read == 0:
                        raise CheckpointError(f"{self.path}: {self.key}: the file ends inside this tensor (truncated?)")
                    done += read
        except OSError as error:
            raise CheckpointError(f"{self.path}: {self.key}: cannot be read ({error.strerror})") from error
        return target

    def prefetch(self, row: int, count: int) -> None:
        """Let the system read `count` bytes from `row` on ahead of time, beyond this tensor too."""
        if self.memory is None:
            with self.path.open("rb", buffering=0) as file:
                start = self.offset + row * self.row_bytes
                os.posix_fadvise(file.fileno(), start, count, os.POSIX_FADV_WILLNEED)

    def load(self) -> Tensor:
        """The whole tensor in memory."""
        return self.read_bytes(0, self.rows).view(self.dtype).reshape(self.shape)


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
