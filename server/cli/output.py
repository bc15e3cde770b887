"""How commands print: JSON for programs, or lines that align and that `grep` and `cut` understand."""

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import typer


def print_json(value: Any) -> None:
    """One JSON value on stdout."""
    typer.echo(json.dumps(value, indent=2, ensure_ascii=False, default=str))


def print_rows(head: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """A line for each row under a head; nothing but the head where there are none."""
    lines = [[str(cell) if cell not in {None, ""} else "-" for cell in row] for row in rows]
    widths = [max(len(line[column]) for line in [list(head), *lines]) for column in range(len(head))]
    for line in [head, *lines]:
        typer.echo("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())


def time_of(at: float | None) -> str | None:
    """Unix seconds as UTC."""
    return None if at is None else datetime.fromtimestamp(at, UTC).isoformat(timespec="seconds")
