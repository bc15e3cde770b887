"""Where a long run reports: messages for the terminal, and byte counts for a progress bar."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

Progress = Callable[[int], None]
"""Called, perhaps from several threads, with the number of bytes just read or written."""


def ignore(*_: object) -> None:
    """Nothing is reported."""


@dataclass(frozen=True, kw_only=True)
class Reporter:
    """`say` gets messages, `start` what begins and how many bytes it will read or write, `progress` each portion."""

    say: Callable[[str], None] = ignore
    start: Callable[[str, int], None] = ignore
    progress: Progress = ignore


SILENT = Reporter()
