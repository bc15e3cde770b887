"""What the rows say about all jobs together, read when metrics are asked for: every process gives the same figures."""

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

import sqlalchemy as sa

from server.db.tables import request_table, usage_table, webhook_table
from server.fal.submit_headers import Priority
from server.jobs.completion import FAILED, PENDING
from server.jobs.job import Status

_row, _usage, _webhook = request_table.c, usage_table.c, webhook_table.c
_SETTLED_AFTER_S: Final = 3600.0  # longer than clocks of machines differ, and than a transaction takes
_UNDELIVERED: Final = (PENDING, FAILED)


@dataclass(frozen=True, slots=True)
class Ended:
    """Jobs that ended in one way, since the first one; `gpu_seconds` of them all."""

    jobs: int
    gpu_seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Totals:
    """At one moment. `ended` is by the `outcome` of the usage records, which stay when requests are deleted."""

    waiting: Mapping[Priority, int]
    oldest_wait_s: float
    running: int
    ended: Mapping[str, Ended]
    webhooks: Mapping[str, int]  # pending and failed ones


class TotalsReader:
    """Queries that an index answers, however much is kept; several threads may ask. `clock` gives Unix seconds.

    Usage records are only added: those of more than an hour ago are read once and remembered. One that is written
    later still with such a time is not counted before the next start.
    """

    def __init__(self, database: sa.Engine, clock: Callable[[], float] = time.time) -> None:
        self._database = database
        self._clock = clock
        self._reading = threading.Lock()
        self._settled: dict[str, Ended] = {}
        self._settled_until = float("-inf")

    def read(self) -> Totals:
        """The totals of now."""
        with self._reading, self._database.connect() as connection:
            return self._read(connection)

    def _read(self, connection: sa.Connection) -> Totals:
        count = sa.func.count()
        # `finished_at` has an index, and is NULL for open jobs alone.
        open_jobs = (
            sa.select(_row.status, _row.priority, count, sa.func.min(_row.created_at))
            .where(_row.finished_at.is_(None))
            .group_by(_row.status, _row.priority)
        )
        webhooks = sa.select(_webhook.state, count).where(_webhook.state.in_(_UNDELIVERED)).group_by(_webhook.state)
        found = connection.execute(open_jobs).all()
        waiting = [row for row in found if row.status == Status.IN_QUEUE]
        oldest = min((row[3] for row in waiting), default=None)
        return Totals(
            waiting=dict.fromkeys(Priority, 0) | {Priority(row.priority): row[2] for row in waiting},
            oldest_wait_s=0.0 if oldest is None else max(0.0, self._clock() - oldest),
            running=sum(row[2] for row in found if row.status == Status.IN_PROGRESS),
            ended=self._ended(connection),
            webhooks=dict.fromkeys(_UNDELIVERED, 0) | {row.state: row[1] for row in connection.execute(webhooks)},
        )

    def _ended(self, connection: sa.Connection) -> dict[str, Ended]:
        settled_until = self._clock() - _SETTLED_AFTER_S
        if settled_until > self._settled_until + _SETTLED_AFTER_S:
            newly = _usage_between(connection, self._settled_until, settled_until)
            self._settled, self._settled_until = _sum(self._settled, newly), settled_until
        return _sum(self._settled, _usage_between(connection, self._settled_until, float("inf")))


def _usage_between(connection: sa.Connection, begin: float, end: float) -> dict[str, Ended]:
    """By outcome, of the records with `begin <= finished_at < end`."""
    limits = []
    if begin != float("-inf"):
        limits.append(_usage.finished_at >= begin)
    if end != float("inf"):
        limits.append(_usage.finished_at < end)
    sums = sa.select(_usage.outcome, sa.func.count(), sa.func.sum(_usage.gpu_seconds)).where(*limits)
    return {row.outcome: Ended(row[1], row[2]) for row in connection.execute(sums.group_by(_usage.outcome))}


def _sum(some: Mapping[str, Ended], others: Mapping[str, Ended]) -> dict[str, Ended]:
    none = Ended(0, 0.0)
    pairs = {outcome: (some.get(outcome, none), others.get(outcome, none)) for outcome in some.keys() | others.keys()}
    return {outcome: Ended(a.jobs + b.jobs, a.gpu_seconds + b.gpu_seconds) for outcome, (a, b) in pairs.items()}
