"""How long requests wait for a GPU: requests that arrive at random, renders that all take equally long (M/D/c).

A formula, and a simulation that it is checked by. The simulation asks a `Dispatcher` which job comes next, so that it
runs on a plain list as well as on the real queue in a database.
"""

import heapq
import math
import random
import statistics
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Protocol

_ARRIVES: Final = 0
_ENDS: Final = 1


class Dispatcher(Protocol):
    """What holds the waiting jobs. Jobs are numbered from 0 in the order of their arrival; `now` is in seconds."""

    def add(self, number: int, now: float) -> None:
        """A request arrives."""

    def claim(self, worker: int, now: float) -> int | None:
        """A free worker takes the next job, if there is one."""

    def complete(self, worker: int, number: int, now: float) -> None:
        """Its video is there."""


class InOrder:
    """First come, first served."""

    def __init__(self) -> None:
        self._waiting: deque[int] = deque()

    def add(self, number: int, now: float) -> None:  # noqa: ARG002 - the protocol's
        """Behind all others."""
        self._waiting.append(number)

    def claim(self, worker: int, now: float) -> int | None:  # noqa: ARG002
        """The one that has waited longest."""
        return self._waiting.popleft() if self._waiting else None

    def complete(self, worker: int, number: int, now: float) -> None:
        """Nothing to remember."""


@dataclass(frozen=True, slots=True)
class Load:
    """`workers` that render for `render_s` seconds each, kept busy for a share `utilisation` of the time."""

    workers: int
    render_s: float
    utilisation: float

    def expected_wait_s(self) -> float:
        """Mean seconds in the queue, all requests counted.

        Half of that with exponential render times (Erlang C), corrected as by G. P. Cosmetatos, "Approximate explicit
        formulae for the average queueing time in the processes (M/D/r) and (D/M/r)", INFOR 13 (1975). Exact for one
        worker.
        """
        servers, offered = self.workers, self.workers * self.utilisation
        blocked = 1.0  # Erlang B, by its recurrence over the number of servers
        for count in range(1, servers + 1):
            blocked = offered * blocked / (count + offered * blocked)
        waits = blocked / (1 - self.utilisation * (1 - blocked))
        spare = 1 - self.utilisation
        correction = 1 + spare * (servers - 1) * (math.sqrt(4 + 5 * servers) - 2) / (16 * offered)
        return waits * correction * self.render_s / (2 * servers * spare)


def simulate(load: Load, dispatcher: Dispatcher, *, jobs: int, seed: int) -> list[float]:
    """Seconds that each of so many requests waits. The first ones find an empty machine: see `steady_mean`."""
    chosen = random.Random(seed)  # noqa: S311 - a simulation
    every_s = load.render_s / (load.workers * load.utilisation)
    arrived, waits = [0.0] * jobs, [0.0] * jobs
    free = list(range(load.workers))
    events: list[tuple[float, int, int, int]] = [(chosen.expovariate(1 / every_s), _ARRIVES, 0, 0)]
    while events:
        now, kind, number, worker = heapq.heappop(events)
        if kind == _ARRIVES:
            arrived[number] = now
            dispatcher.add(number, now)
            if number + 1 < jobs:
                heapq.heappush(events, (now + chosen.expovariate(1 / every_s), _ARRIVES, number + 1, 0))
        else:
            dispatcher.complete(worker, number, now)
            heapq.heappush(free, worker)
        while free:
            taken = dispatcher.claim(free[0], now)
            if taken is None:
                break
            waits[taken] = now - arrived[taken]
            heapq.heappush(events, (now + load.render_s, _ENDS, taken, heapq.heappop(free)))
    return waits


def steady_mean(waits: Sequence[float]) -> float:
    """Without the first fifth, which met an empty machine."""
    return statistics.fmean(waits[len(waits) // 5 :])


def percentile(values: Sequence[float], share: float) -> float:
    """The value that so large a share of all does not exceed."""
    return sorted(values)[max(0, math.ceil(share * len(values)) - 1)]
