"""Times runs on a device: minima of interleaved repeats, and the peak memory of the first."""

import gc
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import torch

from pipeline.fused.fallback import one_line

T = TypeVar("T")

OUT_OF_TIME = "no time left"


@dataclass(frozen=True, slots=True)
class Case:
    """One thing to time: `run` within `setting`, which is entered for every repeat and not timed.

    warm: how many runs are not timed after each entry.
    """

    name: str
    run: Callable[[], object]
    setting: Callable[[], AbstractContextManager[object]] = nullcontext
    warm: int = 0


@dataclass(frozen=True, slots=True)
class Timed:
    """The fastest repeat and the peak of the first run, or why there is none."""

    seconds: float | None = None
    peak_bytes: int | None = None
    error: str = ""


class Stopwatch:
    """Repeats runs on `device` until `repeats` are done or the time is over, `limit_s` from now."""

    def __init__(self, device: torch.device, *, repeats: int, limit_s: float) -> None:
        self.device = device
        self.repeats = repeats
        self._end = time.monotonic() + limit_s

    @property
    def expired(self) -> bool:
        return time.monotonic() >= self._end

    def result(self, run: Callable[[], T]) -> tuple[float, T]:
        """Seconds of one run, from an idle device to an idle device, and what it gave.

        On one thread of a CPU they are the thread's own: what others do beside it does not count.
        """
        alone = self.device.type == "cpu" and torch.get_num_threads() == 1
        clock = time.thread_time if alone else time.perf_counter
        self._synchronize()
        started = clock()
        given = run()
        self._synchronize()
        return clock() - started, given

    def minima(self, cases: Sequence[Case]) -> dict[str, Timed]:
        """Every case in turn, again and again: a machine that changes its speed changes it for all of them.

        The first turn warms up and counts only where no time is left for another. A case that fails is left out of the
        next turns.
        """
        first: dict[str, Timed] = {}
        for case in cases:
            first[case.name] = Timed(error=OUT_OF_TIME) if self.expired else self._first(case)
        best: dict[str, float] = {}
        for _ in range(self.repeats):
            for case in cases:
                if self.expired or first[case.name].error:
                    continue
                seconds = self._repeat(case)
                best[case.name] = min(seconds, best.get(case.name, seconds))
        return {
            name: Timed(best.get(name, timed.seconds or 0.0), timed.peak_bytes) if not timed.error else timed
            for name, timed in first.items()
        }

    def _repeat(self, case: Case) -> float:
        with case.setting():
            return self._seconds(case)

    def _seconds(self, case: Case) -> float:
        for _ in range(case.warm):
            case.run()
        return self.result(case.run)[0]

    def _first(self, case: Case) -> Timed:
        try:
            with case.setting():
                _reset_peak(self.device)  # what a setting has moved away, or moves back, does not count
                return Timed(self._seconds(case), _peak(self.device))
        except Exception as error:
            message = one_line(error)
        self.free()
        return Timed(error=message)

    def free(self) -> None:
        """After a failure: what it held is memory for the next."""
        gc.collect()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    def _synchronize(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)


def _reset_peak(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return
    try:
        Path("/proc/self/clear_refs").write_text("5")  # Linux: from now on VmHWM is the peak since here
    except OSError:
        return


def _peak(device: torch.device) -> int | None:
    """Bytes since the reset; None where the system does not count."""
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:")), None)
