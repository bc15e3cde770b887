"""How commands print: JSON for programs, or lines that align and that `grep` and `cut` understand."""

import json
import re
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, Final

import typer

from server.logs import spelled_out

_C1: Final = re.compile(r"[\x7f-\x9f]")  # some terminals obey them, and JSON leaves them as they are


def print_json(value: Any) -> None:
    """One JSON value on stdout."""
    text = json.dumps(value, indent=2, ensure_ascii=False, default=str)
    typer.echo(_C1.sub(lambda found: f"\\u{ord(found[0]):04x}", text))


def print_rows(head: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """A line for each row under a head; nothing but the head where there are none."""
    lines = [[one_line(cell) if cell not in {None, ""} else "-" for cell in row] for row in rows]
    widths = [max(len(line[column]) for line in [list(head), *lines]) for column in range(len(head))]
    for line in [head, *lines]:
        typer.echo("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())


def one_line(value: object) -> str:
    """What is in the database may be what a user wrote: it makes no line of its own, and tells the terminal nothing."""
    return spelled_out(str(value)).replace("\n", "\\n")


def time_of(at: float | None) -> str | None:
    """Unix seconds as UTC."""
    return None if at is None else datetime.fromtimestamp(at, UTC).isoformat(timespec="seconds")
