"""What the rows say about all jobs together, read when metrics are asked for: every process gives the same figures."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

import sqlalchemy as sa

from server.db.tables import request_table, webhook_table
from server.fal.submit_headers import Priority
from server.jobs.completion import FAILED, PENDING
from server.jobs.job import Status
from server.jobs.usage_sums import Group, UsageSums, Used

_row, _webhook = request_table.c, webhook_table.c
_UNDELIVERED: Final = (PENDING, FAILED)


@dataclass(frozen=True, slots=True, kw_only=True)
class Totals:
    """At one moment. `used` is of the usage records, which stay when requests are deleted."""

    waiting: Mapping[Priority, int]
    oldest_wait_s: float
    running: int
    used: Mapping[Group, Used]
    webhooks: Mapping[str, int]  # pending and failed ones

    @property
    def ended(self) -> dict[str, Used]:
        """The jobs that are over, by the outcome of their records."""
        ended: dict[str, Used] = {}
        for group, used in self.used.items():
            ended[group.outcome] = ended.get(group.outcome, Used()) + used
        return ended


class TotalsReader:
    """Queries that an index answers, however much is kept; several threads may ask. `clock` gives Unix seconds."""

    def __init__(self, database: sa.Engine, clock: Callable[[], float] = time.time) -> None:
        self._database = database
        self._clock = clock
        self._usage = UsageSums(clock)

    def read(self) -> Totals:
        """The totals of now."""
        with self._database.connect() as connection:
            return self.read_in(connection)

    def read_in(self, connection: sa.Connection) -> Totals:
        """The same, as this transaction sees them."""
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
            used=self._usage.read(connection),
            webhooks=dict.fromkeys(_UNDELIVERED, 0) | {row.state: row[1] for row in connection.execute(webhooks)},
        )
