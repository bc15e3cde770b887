"""What benchmarks and tests expect of other processes, and waiting for it."""

import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final

LIMIT_S: Final = 120.0  # for a machine with much else to do; what is measured has limits of its own
_LOOK_EVERY_S: Final = 0.05
CLOSELY_S: Final = 0.02  # where the time until then is measured


def until(condition: Callable[[], bool], timeout_s: float = LIMIT_S, *, every_s: float = _LOOK_EVERY_S) -> None:
    """Wait for something another process does: a bounded poll, since it sends no event.

    Raises:
        TimeoutError: it did not happen.
    """
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() >= deadline:
            raise TimeoutError(f"it did not happen within {timeout_s:g} s")
        time.sleep(every_s)


def expect(condition: bool, promise: str) -> None:
    """What the server promises.

    Raises:
        RuntimeError: it does not keep it.
    """
    if not condition:
        raise RuntimeError(f"broken promise: {promise}")


def child_processes(pid: int, word: str = "") -> set[int]:
    """The children of a process; with `word`, those that have it among the words of their command line."""
    found = set()
    with suppress(FileNotFoundError, ProcessLookupError):
        for listed in Path(f"/proc/{pid}/task").glob("*/children"):
            for child in listed.read_text().split():
                with suppress(FileNotFoundError, ProcessLookupError):
                    if not word or word in Path(f"/proc/{child}/cmdline").read_text().split("\0"):
                        found.add(int(child))
    return found
