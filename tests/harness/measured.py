"""How far each piece is off the reference: asserted case by case, shown as one table at the end of the run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(slots=True)
class Row:
    """Of one piece. `tolerance` is the widest that any of its cases allows."""

    unit: str
    worst: float = 0.0
    tolerance: float = 0.0
    cases: int = 0


class Close(Protocol):
    """See `Measured.close`."""

    def __call__(self, piece: str, actual: Tensor, expected: Tensor, tolerance: float, unit: str = "") -> None: ...


class Measured:
    def __init__(self) -> None:
        self.rows: dict[str, Row] = {}

    def close(self, piece: str, actual: Tensor, expected: Tensor, tolerance: float, unit: str = "") -> None:
        """Asserts equality up to an absolute tolerance (0: exactly) and remembers how far off it was.

        `unit`: what differences of this piece count, where it is not the values themselves.
        """
        assert actual.shape == expected.shape
        difference = (actual.double() - expected.double()).abs().max().item()
        row = self.rows.setdefault(piece, Row(unit))
        assert row.unit == unit, f"{piece}: in two units"
        row.worst, row.tolerance = max(row.worst, difference), max(row.tolerance, tolerance)
        row.cases += 1
        assert difference <= tolerance, f"{piece}: off by {difference:.3g}, allowed {tolerance:.3g}"

    def lines(self) -> list[str]:
        heading = f"{'piece':<52} {'worst':>8} {'allowed':>8} {'cases':>6}  unit"
        return [heading] + [
            f"{piece:<52} {row.worst:8.2g} {row.tolerance:8.2g} {row.cases:6}  {row.unit}".rstrip()
            for piece, row in sorted(self.rows.items())
        ]


MEASURED = Measured()
