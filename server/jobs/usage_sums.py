"""How much was used, by owner, outcome and day (UTC): sums over all usage records, most of which are remembered."""

import math
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Final, NamedTuple

import sqlalchemy as sa

from server.db.tables import usage_table

_DAY_S: Final = 86400.0
DAYS: Final = 7  # that are told apart: today and the six before
BEFORE: Final = -1  # in place of an earlier day
_SETTLED_AFTER_S: Final = 3600.0  # longer than clocks of machines differ, and than a transaction takes

_usage = usage_table.c


@dataclass(frozen=True, slots=True)
class Used:
    """By some jobs together; `frames` are those asked for."""

    jobs: int = 0
    gpu_seconds: float = 0.0
    frames: int = 0

    def __add__(self, other: "Used") -> "Used":
        return Used(self.jobs + other.jobs, self.gpu_seconds + other.gpu_seconds, self.frames + other.frames)


class Group(NamedTuple):
    """`outcome` is the record's, `day` the number of days since 1970 or `BEFORE`."""

    owner: str
    outcome: str
    day: int


class UsageSums:
    """Queries that an index answers, however much is kept; several threads may ask. `clock` gives Unix seconds.

    Usage records are only added: those of more than an hour ago are read once and remembered. One that is written
    later still with such a time is not counted before the next start.
    """

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._reading = threading.Lock()
        self._settled: dict[Group, Used] = {}
        self._settled_until = -math.inf

    def read(self, connection: sa.Connection) -> Mapping[Group, Used]:
        """All sums, as this transaction sees them."""
        with self._reading:
            settled_until = self._clock() - _SETTLED_AFTER_S
            if settled_until > self._settled_until + _SETTLED_AFTER_S:
                known = self._fold(self._settled)
                self._settled = self._with(known, connection, self._settled_until, settled_until)
                self._settled_until = settled_until
            return self._with(self._settled, connection, self._settled_until, math.inf)

    def _with(
        self, known: Mapping[Group, Used], connection: sa.Connection, begin: float, end: float
    ) -> dict[Group, Used]:
        """Those sums, and the records with `begin <= finished_at < end`."""
        sums = dict(known)
        for day, conditions in self._days(begin, end):
            columns = (_usage.owner, _usage.outcome)
            of_all = sa.func.count(), sa.func.sum(_usage.gpu_seconds), sa.func.sum(_usage.frames)
            for owner, outcome, *used in connection.execute(
                sa.select(*columns, *of_all).where(*conditions).group_by(*columns)
            ):
                group = Group(owner, outcome, day)
                sums[group] = sums.get(group, Used()) + Used(used[0], used[1], used[2] or 0)
        return sums

    def _days(self, begin: float, end: float) -> Iterator[tuple[int, list[sa.ColumnElement[bool]]]]:
        """The parts of that time which lie in different days, as conditions."""
        first = day_of(self._clock()) - DAYS + 1
        midnights = [day * _DAY_S for day in range(first, first + DAYS)]
        edges = [begin, *(at for at in midnights if begin < at < end), end]
        for start, stop in pairwise(edges):
            conditions = [] if start == -math.inf else [_usage.finished_at >= start]
            conditions += [] if stop == math.inf else [_usage.finished_at < stop]
            yield (day_of(start) if start >= midnights[0] else BEFORE), conditions

    def _fold(self, sums: Mapping[Group, Used]) -> dict[Group, Used]:
        """Days that are not told apart any more become one."""
        first, folded = day_of(self._clock()) - DAYS + 1, dict[Group, Used]()
        for group, used in sums.items():
            kept = group if group.day >= first else group._replace(day=BEFORE)
            folded[kept] = folded.get(kept, Used()) + used
        return folded


def day_of(at: float) -> int:
    """The day of a time in Unix seconds, counted since 1970."""
    return int(at // _DAY_S)
