"""How much memory of its own a process has (Linux)."""

from __future__ import annotations

import multiprocessing
import re
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TypeVar

from weights.errors import WeightsError

T = TypeVar("T")

POLL_SECONDS = 0.05


def rss_anon(pid: int) -> int:
    """Anonymous memory of a process in bytes; 0 if it has just ended. Pages of mapped files do not count."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0
    found = re.search(r"RssAnon:\s+(\d+) kB", status)
    return int(found[1]) * 1024 if found else 0


def in_a_process(function: Callable[..., T], *arguments: object) -> tuple[T, int]:
    """Call `function` in a fresh process; return its result and the process's peak RssAnon, start and imports included.

    Raises what the function raises of `WeightsError`, and `WeightsError` when it fails in another way.
    """
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_answer, args=(theirs, function, arguments))
    process.start()
    theirs.close()
    peak = 0
    while process.is_alive() and not ours.poll(POLL_SECONDS):
        peak = max(peak, rss_anon(process.pid or 0))
    try:
        result = ours.recv()
    except EOFError:
        process.join()
        raise WeightsError(f"{function.__name__}: its process failed (exit code {process.exitcode})") from None
    process.join()
    if isinstance(result, WeightsError):
        raise result
    return result, peak


def _answer(answer: Connection, function: Callable[..., object], arguments: tuple[object, ...]) -> None:
    try:
        answer.send(function(*arguments))
    except WeightsError as error:
        answer.send(error)
