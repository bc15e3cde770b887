"""One tensor on its way from an original file into a converted one: what it becomes, and the checks it passes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from weights.errors import BadValuesError
from weights.writing.stored_tensor import FLOAT8, StoredTensor

FLOAT8_OVERFLOW = 464.0  # half a step above 448, the largest float8_e4m3fn; torch's cast would saturate silently


@dataclass(frozen=True)
class Piece:
    """One converted tensor: rows of its original, the ranges `[start, stop)` concatenated in order."""

    name: str
    rows: tuple[tuple[int, int], ...]

    def cut(self, values: Tensor) -> Tensor:
        """These rows of `values`; a view where they are one range."""
        parts = [values[start:stop] for start, stop in self.rows]
        return parts[0] if len(parts) == 1 else torch.cat(parts)


@dataclass(frozen=True, kw_only=True)
class Move:
    """An original tensor, the pieces it becomes and the dtype they are stored in."""

    source: StoredTensor
    pieces: tuple[Piece, ...]
    dtype: torch.dtype

    @classmethod
    def whole(cls, source: StoredTensor, name: str) -> Move:
        """The tensor unchanged under another name."""
        return cls(source=source, pieces=(Piece(name, ((0, source.rows),)),), dtype=source.dtype)

    def entries(self) -> Iterator[tuple[str, torch.dtype, tuple[int, ...]]]:
        """Name, dtype and shape of every piece."""
        for piece in self.pieces:
            rows = sum(stop - start for start, stop in piece.rows)
            yield piece.name, self.dtype, (rows, *self.source.shape[1:]) if self.source.shape else ()

    @property
    def nbytes(self) -> int:
        """Bytes written."""
        return self.source.nbytes // self.source.dtype.itemsize * self.dtype.itemsize

    def convert(self) -> Iterator[Tensor]:
        """Read the original and yield the pieces in order. Raises `CheckpointError`, `BadValuesError`."""
        values = self.source.read_finite().reshape(self.source.rows, *self.source.shape[1:])
        if self.dtype != self.source.dtype:
            values = self._cast(values)
        for piece in self.pieces:
            yield piece.cut(values)

    def _cast(self, values: Tensor) -> Tensor:
        if self.dtype == FLOAT8 and values.numel() and values.abs().max().item() >= FLOAT8_OVERFLOW:
            raise BadValuesError(f"{self.source.path}: {self.source.key}: values beyond float8_e4m3fn's 448")
        return values.to(self.dtype)
