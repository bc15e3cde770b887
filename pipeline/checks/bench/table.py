"""What was measured, row by row: for the terminal, and as JSON."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One measurement. A field that was not measured is None, and `error` says why if it should have been.

    seconds: the fastest repeat. rate in `unit` ("TF/s", "GB/s"). ratio: to `of`. tokens: image tokens, reference
    included. peak_bytes: of the device's allocator (CUDA), or resident memory of the whole process (CPU).
    """

    stage: str
    what: str
    size: str = ""
    tokens: int | None = None
    seconds: float | None = None
    rate: float | None = None
    unit: str = ""
    ratio: float | None = None
    of: str = ""
    peak_bytes: int | None = None
    note: str = ""
    error: str = ""


_HEADINGS = ("stage", "what", "size", "seconds", "rate", "ratio", "peak", "note")


def as_json(rows: Sequence[Row]) -> list[dict[str, object]]:
    """Every row with all its fields."""
    return [asdict(row) for row in rows]


def as_lines(rows: Sequence[Row]) -> list[str]:
    """A table of fixed columns; the last one is as wide as it must be."""
    cells = [_HEADINGS, *(_cells(row) for row in rows)]
    widths = [max(len(line[column]) for line in cells) for column in range(len(_HEADINGS) - 1)]
    return ["  ".join((*map(str.ljust, line, widths), line[-1])).rstrip() for line in cells]


def _cells(row: Row) -> tuple[str, ...]:
    return (
        row.stage,
        row.what,
        row.size,
        "" if row.seconds is None else f"{row.seconds:.4g}",
        "" if row.rate is None else f"{row.rate:.4g} {row.unit}",
        "" if row.ratio is None else f"{row.ratio:.3g} x {row.of}",
        "" if row.peak_bytes is None else f"{row.peak_bytes / 1e9:.2f} GB",
        f"not measured: {row.error}" if row.error else row.note,
    )
