"""A tensor in a file: what the file's header says of it, and a way to read its values."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from weights.errors import BadValuesError

FLOAT8 = torch.float8_e4m3fn


@dataclass(frozen=True, kw_only=True)
class StoredTensor:
    """`read` fetches the values; it raises `CheckpointError` when they cannot be read or fail their checksum."""

    key: str
    path: Path
    dtype: torch.dtype
    shape: tuple[int, ...]
    read: Callable[[], Tensor]

    @classmethod
    def in_memory(cls, key: str, tensor: Tensor, path: Path) -> StoredTensor:
        """A tensor that has been read already; `path` is named in errors."""
        return cls(key=key, path=path, dtype=tensor.dtype, shape=tuple(tensor.shape), read=lambda: tensor)

    @property
    def rows(self) -> int:
        """Length of dim 0; 1 for a scalar."""
        return self.shape[0] if self.shape else 1

    @property
    def nbytes(self) -> int:
        """Bytes of the whole tensor."""
        return math.prod(self.shape) * self.dtype.itemsize

    def read_finite(self) -> Tensor:
        """The values; raises `BadValuesError` if there is a NaN or an infinity among them."""
        values = self.read()
        if not _all_finite(values):
            raise BadValuesError(f"{self.path}: {self.key}: holds NaN or infinity")
        return values


def _all_finite(values: Tensor) -> bool:
    """The extremes of a tensor are finite exactly when all of it is; `aminmax` is many times faster than `isfinite`."""
    if not values.dtype.is_floating_point or not values.numel():
        return True
    if values.dtype == FLOAT8:  # no arithmetic on it; NaN is 0x7f or 0xff, and there is no infinity
        return bool((values.view(torch.uint8) & 0x7F).max() != 0x7F)
    low, high = torch.aminmax(values)
    return math.isfinite(low.item()) and math.isfinite(high.item())
