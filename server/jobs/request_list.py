"""Requests of all owners, the newest first: what an operator lists. Reads only."""

import json
from dataclasses import dataclass
from typing import Any, Self

import sqlalchemy as sa

from server.db.tables import literal, request_table
from server.errors import reasons
from server.jobs.job import Status
from server.jobs.outcomes import CANCELLED
from server.jobs.request_state import State, state_of

_row = request_table.c


@dataclass(frozen=True, slots=True, kw_only=True)
class ListedRequest:
    """One request without its input. Times are Unix seconds; `error` is what its sender is told."""

    request_id: str
    owner: str
    state: State
    created_at: float
    started_at: float | None
    finished_at: float | None
    worker_id: str | None
    attempts: int
    faults: int
    inference_time: float | None
    error_type: str | None
    error: str | None

    @classmethod
    def of(cls, job: Any) -> Self:
        """From a `Job`, or a row that has these columns of its."""
        return cls(
            request_id=job.id,
            owner=job.owner,
            state=state_of(job.status, job.error_type),
            created_at=job.created_at,
            started_at=job.started_at,
            finished_at=job.finished_at,
            worker_id=job.worker_id,
            attempts=job.attempt,
            faults=job.faults,
            inference_time=job.inference_time,
            error_type=job.error_type,
            error=next(iter(reasons(json.loads(job.response_json or "{}"))), job.error),
        )


class RequestList:
    """Those of one database; several threads may ask."""

    def __init__(self, database: sa.Engine) -> None:
        self._database = database

    def newest(self, *, owner: str | None = None, state: State | None = None, limit: int) -> list[ListedRequest]:
        """The newest ones that match."""
        columns = (
            _row.id, _row.owner, _row.status, _row.created_at, _row.started_at, _row.finished_at, _row.worker_id,
            _row.attempt, _row.faults, _row.inference_time, _row.error_type, _row.error,
            _row.response_json,
        )  # fmt: skip
        query = sa.select(*columns).order_by(_row.seq.desc()).limit(limit)
        if owner is not None:
            query = query.where(_row.owner == owner)
        if state is not None:
            query = query.where(*_matches(state))
        with self._database.connect() as connection:
            return [ListedRequest.of(row) for row in connection.execute(query)]


def _matches(state: State) -> tuple[sa.ColumnElement[bool], ...]:
    over = _row.status == literal(Status.COMPLETED)
    match state:
        case State.WAITING:
            return (_row.status == literal(Status.IN_QUEUE),)
        case State.RUNNING:
            return (_row.status == literal(Status.IN_PROGRESS),)
        case State.SUCCEEDED:
            return over, _row.error_type.is_(None)
        case State.CANCELLED:
            return over, _row.error_type == CANCELLED.error_type
        case State.FAILED:
            return over, _row.error_type != CANCELLED.error_type
