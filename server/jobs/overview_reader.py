"""Reads what an operator sees at a glance, as of one moment.

It needs nothing but a database: a command beside a server shows the same as the API's page.
"""

import json
import time
from collections.abc import Callable, Collection, Mapping
from typing import Final
from urllib.parse import urlsplit

import sqlalchemy as sa

from server.db.size import database_bytes
from server.db.snapshot import snapshot
from server.db.tables import key_table, literal, progress_table, request_table, usage_table, webhook_table
from server.errors import reasons
from server.fal.submit_headers import Priority
from server.jobs.completion import COMPLETED, DELIVERED, FAILED, PENDING
from server.jobs.job import Status
from server.jobs.measurements import Measured, all_measured, together
from server.jobs.outcomes import CANCELLED
from server.jobs.overview import (
    Delivery,
    Failure,
    Overview,
    OwnerUsage,
    Queue,
    RunningJob,
    WaitingJob,
    Webhooks,
    WorkerNow,
)
from server.jobs.totals import Totals, TotalsReader
from server.jobs.usage_sums import BEFORE, DAYS, Group, Used, day_of
from server.jobs.worker_registry import Worker, registered

_ROWS: Final = 20  # of each list that could be long
_RUNNING: Final = 200
_OWNERS: Final = 50
_LOOKED_AT: Final = 5000  # ended requests, among which failed ones are looked for

_FINE: Final = (COMPLETED, CANCELLED.error_type)

_row, _webhook, _key, _progress = request_table.c, webhook_table.c, key_table.c, progress_table.c
_usage = usage_table.c


class OverviewReader:
    """Every query is answered by an index and bounded, however much is kept; several threads may ask.

    `stale_s`: a worker silent for longer counts as gone. `clock` gives Unix seconds. `totals` may be shared, since they
    remember what they have summed up.
    """

    def __init__(
        self,
        database: sa.Engine,
        *,
        stale_s: float,
        clock: Callable[[], float] = time.time,
        totals: TotalsReader | None = None,
    ) -> None:
        self._database = database
        self._stale_s = stale_s
        self._clock = clock
        self._totals = totals or TotalsReader(database, clock)

    def read(self) -> Overview:
        """All of it."""
        now = self._clock()
        with snapshot(self._database) as rows:
            totals, measured = self._totals.read_in(rows), all_measured(rows)
            usage = _by_owner(totals.used, day_of(now))
            workers = [self._worker(worker, measured.get(worker.id, Measured()), now) for worker in registered(rows)]
            return Overview(
                at=now,
                queue=_queue(rows, totals, now),
                running=_running(rows, now, {worker.id for worker in workers if not worker.stale}),
                workers=workers,
                failures=_failures(rows, now),
                attempts=together(measured.values()).attempts,
                webhooks=_webhooks(rows, totals, now),
                usage=usage[:_OWNERS],
                owners=len(usage),
                keys=_working_keys(rows, now),
                database=rows.dialect.name,
                database_bytes=database_bytes(rows),
            )

    def _worker(self, worker: Worker, measured: Measured, now: float) -> WorkerNow:
        return WorkerNow(
            id=worker.id,
            state=worker.state,
            detail=worker.detail,
            draining=worker.draining,
            stale=now - worker.heartbeat_at >= self._stale_s,
            heartbeat_age_s=_since(worker.heartbeat_at, now),
            pid=worker.pid,
            generator_pid=worker.generator_pid,
            gpus=measured.gpus,
        )


def _queue(rows: sa.Connection, totals: Totals, now: float) -> Queue:
    columns = (_row.id, _row.owner, _row.priority, _row.created_at, _row.attempt)
    first = sa.select(*columns).where(_row.status == literal(Status.IN_QUEUE))
    found = rows.execute(first.order_by(_row.priority, _row.queue_order).limit(_ROWS))
    return Queue(
        waiting={priority.name.lower(): count for priority, count in totals.waiting.items()},
        oldest_wait_s=totals.oldest_wait_s,
        running=totals.running,
        next=[
            WaitingJob(
                request_id=row.id,
                owner=row.owner,
                priority="low" if row.priority == Priority.LOW else "normal",
                waited_s=_since(row.created_at, now),
                attempts=row.attempt,
            )
            for row in found
        ],
    )


def _running(rows: sa.Connection, now: float, alive: Collection[str]) -> list[RunningJob]:
    columns = (_row.id, _row.owner, _row.worker_id, _row.attempt, _row.faults, _row.started_at, _row.created_at)
    reported = (_progress.stage, _progress.done, _progress.total, _progress.seconds_left, _progress.at)
    query = (
        sa.select(*columns, _row.cancel_requested, _row.video_key.is_not(None).label("rendered"), *reported)
        .select_from(request_table.outerjoin(progress_table, _progress.request_id == _row.id))
        .where(_row.status == literal(Status.IN_PROGRESS))
        .order_by(_row.priority, _row.queue_order)
        .limit(_RUNNING)
    )
    return [
        RunningJob(
            request_id=row.id,
            owner=row.owner,
            worker_id=row.worker_id,
            attempt=row.attempt,
            faults=row.faults,
            running_s=_since(row.started_at or row.created_at, now),
            lost=row.worker_id not in alive,
            cancelled=row.cancel_requested,
            rendered=bool(row.rendered),
            stage=row.stage,
            done=row.done,
            total=row.total,
            seconds_left=row.seconds_left,
            reported_s=None if row.at is None else _since(row.at, now),
        )
        for row in rows.execute(query)
    ]


def _failures(rows: sa.Connection, now: float) -> list[Failure]:
    columns = (_row.id, _row.owner, _row.finished_at, _row.response_status, _row.error_type, _row.error)
    more = (_row.response_json, _row.attempt, _row.faults)
    # Found among usage records, which are small: rows of requests are as long as their prompts.
    ended = sa.select(_usage.request_id, _usage.outcome, _usage.finished_at).order_by(_usage.finished_at.desc())
    last = ended.limit(_LOOKED_AT).subquery()
    failed = sa.select(*columns, *more).join(last, last.c.request_id == _row.id).where(last.c.outcome.not_in(_FINE))
    return [
        Failure(
            request_id=row.id,
            owner=row.owner,
            ended_s=_since(row.finished_at, now),
            status=row.response_status,
            error_type=row.error_type,
            message=next(iter(reasons(json.loads(row.response_json or "{}"))), row.error or row.error_type),
            attempts=row.attempt,
            faults=row.faults,
        )
        for row in rows.execute(failed.order_by(last.c.finished_at.desc()).limit(_ROWS))
    ]


def _webhooks(rows: sa.Connection, totals: Totals, now: float) -> Webhooks:
    columns = (
        *(_webhook[name] for name in ("request_id", "url", "state", "attempts", "outcome", "next_at")),
        _row.owner,
    )
    known = webhook_table.outerjoin(request_table, _row.id == _webhook.request_id)
    latest: list[Delivery] = []
    for state in (FAILED, PENDING, DELIVERED):
        some = sa.select(*columns).select_from(known).where(_webhook.state == state)
        latest += [
            Delivery(
                request_id=row.request_id,
                owner=row.owner,
                host=urlsplit(row.url).netloc.rpartition("@")[2],
                state=row.state,
                attempts=row.attempts,
                outcome=row.outcome,
                due_s=max(0.0, row.next_at - now) if row.state == PENDING else None,
            )
            for row in rows.execute(some.order_by(_webhook.next_at.desc()).limit(_ROWS))
        ]
    return Webhooks(pending=totals.webhooks[PENDING], failed=totals.webhooks[FAILED], latest=latest)


def _by_owner(sums: Mapping[Group, Used], today: int) -> list[OwnerUsage]:
    """Of every owner, those with most GPU time this week first."""
    of: dict[str, list[Used]] = {}
    for group, used in sums.items():
        spans = of.setdefault(group.owner, [Used(), Used(), Used()])
        for index, first in enumerate((today, today - DAYS + 1, BEFORE)):
            if group.day >= first:
                spans[index] += used
    by_week = sorted(of.items(), key=lambda item: (-item[1][1].gpu_seconds, -item[1][2].gpu_seconds, item[0]))
    return [OwnerUsage(owner=owner, today=spans[0], week=spans[1], all=spans[2]) for owner, spans in by_week]


def _working_keys(rows: sa.Connection, now: float) -> int:
    works = sa.or_(_key.revoked_at.is_(None), _key.revoked_at > now)
    return rows.execute(sa.select(sa.func.count()).select_from(key_table).where(works)).scalar_one()


def _since(at: float, now: float) -> float:
    """Seconds; 0 where a clock was put back."""
    return max(0.0, now - at)
