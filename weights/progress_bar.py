"""How far a long run is, on stderr: a bar on a terminal, elsewhere a line every few seconds. Never on stdout."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

_EVERY_S: Final = 5.0  # between lines where there is no terminal
_REDRAWN_PER_S: Final = 4


class ProgressBar:
    """One bar, for one stage after the other; may be fed from several threads.

    `in_bytes`: amounts are bytes and are shown as gigabytes, else as a share. `clock` gives seconds.
    """

    def __init__(
        self, *, in_bytes: bool = False, every_s: float = _EVERY_S, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._in_bytes = in_bytes
        self._every_s = every_s
        self._clock = clock
        self._lock = threading.RLock()
        self._what = ""
        self._done = self._done_before = self._total = 0
        self._begun = self._written_at = clock()
        self._written = ""
        self._left_s: float | None = None
        self._drawn: tuple[Progress, TaskID] | None = None

    def __enter__(self) -> ProgressBar:
        """Nothing is shown before there is something to show."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Take the bar away."""
        self.clear()

    def show(self, what: str, done: int = 0, total: int = 0, *, left_s: float | None = None) -> None:
        """A stage and how much of it is done; `total` 0 where that is not known.

        `left_s`: seconds to the end, by default from the pace so far.
        """
        with self._lock:
            if what != self._what:
                self._begun, self._done_before = self._clock(), done
                if self._drawn is not None:
                    self._drawn[0].reset(self._drawn[1])
            self._what, self._done, self._total, self._left_s = what, done, total, left_s
            self._draw()

    def begin(self, what: str, total: int) -> None:
        """Nothing of a stage is done yet."""
        with self._lock:
            self._what = ""
            self.show(what, 0, total)

    def advance(self, count: int) -> None:
        """`count` more of the stage are done."""
        with self._lock:
            self._done += count
            self._draw()

    def say(self, line: str, *, err: bool = True) -> None:
        """A line of its own, which stays; on stdout if it is a result."""
        stream = sys.stderr if err else sys.stdout
        with self._lock:
            if self._drawn is not None and stream.isatty():  # above the bar
                self._drawn[0].console.print(line, markup=False, highlight=False, soft_wrap=True)
                return
            stream.write(f"{line}\n")
            stream.flush()

    def clear(self) -> None:
        """Take the bar away until there is more to show."""
        with self._lock:
            if self._drawn is not None:
                self._drawn[0].stop()
            self._drawn = None

    def _draw(self) -> None:
        if sys.stderr.isatty():
            self._draw_bar()
        elif self._clock() - self._written_at >= self._every_s:
            line = ", ".join(filter(None, (self._what, self._amount(), self._left())))
            if line != self._written:
                sys.stderr.write(f"{line}\n")
                sys.stderr.flush()
            self._written, self._written_at = line, self._clock()

    def _draw_bar(self) -> None:
        if self._drawn is None:
            from rich.console import Console
            from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

            progress = Progress(
                SpinnerColumn(),
                TextColumn("{task.description}", markup=False),
                BarColumn(),
                TextColumn("{task.fields[amount]}", markup=False),
                TimeElapsedColumn(),
                TextColumn("{task.fields[left]}", markup=False),
                console=Console(stderr=True),
                transient=True,
                redirect_stdout=sys.stdout.isatty(),  # what is printed there stands above the bar
                redirect_stderr=True,
                refresh_per_second=_REDRAWN_PER_S,
            )
            self._drawn = progress, progress.add_task(self._what, total=None, amount="", left="")
            progress.start()
        progress, task = self._drawn
        progress.update(
            task,
            description=self._what,
            completed=self._done,
            total=self._total or None,
            amount=self._amount(),
            left=self._left(),
        )

    def _amount(self) -> str:
        if not self._total:
            return ""
        if self._in_bytes:
            return f"{self._done / 1e9:.1f} of {self._total / 1e9:.1f} GB"
        return f"{100 * self._done // self._total} %"

    def _left(self) -> str:
        left_s = self._left_s
        done = self._done - self._done_before
        if left_s is None and done > 0 and self._done < self._total:
            left_s = (self._clock() - self._begun) * (self._total - self._done) / done
        return "" if left_s is None or self._done == self._total else f"about {duration(left_s)} left"


def duration(seconds: float) -> str:
    """`13 s`, `4 min 10 s`, `1 h 5 min`."""
    whole = round(seconds)
    if whole < 100:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"
