"""The reads behind status, event streams and sync runs: plain SQL in the event loop, no ORM and no thread.

Clients poll ten times a second, so this is the hot path. SQLite answers in microseconds and its WAL readers never
wait; on Postgres the same SQL goes through asynchronous connections of the event loop's own (`db/async_rows.py`).
"""

# ruff: noqa: S608 - the SQL is put together from constants only
import json
import sqlite3
import time
from bisect import bisect_left
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Protocol, Self

import sqlalchemy as sa

from server.jobs.job import LogLine, Status, video_of

Row = tuple[Any, ...]

STATE_COLUMNS: Final = "r.id, r.place, r.status, r.priority, r.base_url, r.inference_time, r.error, r.error_type"
_WAITING: Final = "FROM request WHERE status = 'IN_QUEUE'"  # a literal: only then SQLite takes the partial index
_COUNT: Final = (
    f"SELECT count(*) FROM (SELECT 1 {_WAITING} AND (priority, place) < (:priority, :queue_order) LIMIT :most) AS n"
)
_QUEUE: Final = f"SELECT priority, place {_WAITING} ORDER BY priority, place"
_LOGS: Final = "SELECT id, message, level, at FROM request_log WHERE request_id = :id ORDER BY id"

_COUNTED_EXACTLY: Final = 1000  # further back, a position comes from a copy of the queue
_QUEUE_MAX_AGE_S: Final = 0.1
_QUEUE_LOAD_SHARE: Final = 20  # a copy is used for at least this many times what making it cost


@dataclass(frozen=True, slots=True)
class JobState:
    """As much of a job as its status shows."""

    id: str
    queue_order: int
    status: Status
    priority: int
    base_url: str
    inference_time: float | None
    error: str | None
    error_type: str | None

    @classmethod
    def of(cls, row: Row) -> Self:
        """From the columns of `STATE_COLUMNS`."""
        return cls(row[0], row[1], Status(row[2]), *row[3:8])


class Rows(Protocol):
    """Runs one SELECT; `watched` is the table function that turns a JSON object into rows of key and value."""

    watched: str

    async def __call__(self, sql: str, parameters: Mapping[str, Any]) -> list[Row]:
        """All rows."""


class SqliteRows:
    """One read-only connection, used by the event loop alone."""

    watched = "json_each(:watched) AS w"

    def __init__(self, path: str) -> None:
        self._connection = sqlite3.connect(path, timeout=1.0, isolation_level=None, check_same_thread=False)
        self._connection.execute("PRAGMA query_only=ON")

    async def __call__(self, sql: str, parameters: Mapping[str, Any]) -> list[Row]:
        """All rows, at once."""
        return self._connection.execute(sql, parameters).fetchall()


def open_rows(database: sa.Engine) -> Rows:
    """For one event loop."""
    if database.dialect.name == "sqlite":
        return SqliteRows(database.url.database or ":memory:")
    from server.db.async_rows import PostgresRows

    return PostgresRows(database.url)


class StatusReads:
    """Read access of the hot routes."""

    def __init__(self, rows: Rows, clock: Callable[[], float] = time.monotonic) -> None:
        self._rows = rows
        self._clock = clock
        self._queue: list[tuple[int, int]] = []
        self._queue_valid_until = 0.0

    async def state(self, request_id: str, *, owner: str) -> JobState | None:
        """The state of a job of this owner."""
        sql = f"SELECT {STATE_COLUMNS} FROM request r WHERE r.id = :id AND r.owner = :owner"
        rows = await self._rows(sql, {"id": request_id, "owner": owner})
        return JobState.of(rows[0]) if rows else None

    async def logs(self, request_id: str) -> list[LogLine]:
        """The whole log of a job."""
        return [LogLine(*row) for row in await self._rows(_LOGS, {"id": request_id})]

    async def position(self, state: JobState) -> int:
        """How many waiting jobs come before this one: counted, or in a deep queue looked up in a recent copy."""
        counted = await self._count_before(state.priority, state.queue_order, most=_COUNTED_EXACTLY + 1)
        return counted if counted <= _COUNTED_EXACTLY else await self.recent_position(state)

    async def recent_position(self, state: JobState) -> int:
        """The same from a copy of the queue that is a moment old, for many jobs at once."""
        now = self._clock()
        if now >= self._queue_valid_until:
            self._queue = [(priority, queue_order) for priority, queue_order in await self._rows(_QUEUE, {})]
            done = self._clock()
            self._queue_valid_until = done + max(_QUEUE_MAX_AGE_S, _QUEUE_LOAD_SHARE * (done - now))
        return bisect_left(self._queue, (state.priority, state.queue_order))

    async def some_overdue(self, now: float) -> bool:
        """Whether a waiting job's start deadline, in Unix seconds like `now`, has passed."""
        sql = f"SELECT 1 {_WAITING} AND start_deadline < :now AND started_at IS NULL LIMIT 1"
        return bool(await self._rows(sql, {"now": now}))

    async def video_is_known(self, video_key: str) -> bool:
        """Whether a finished job points to this video, or to the one beside this thumbnail, be it there or not."""
        sql = "SELECT 1 FROM request WHERE video_key = :key AND status = 'COMPLETED'"
        return bool(await self._rows(sql, {"key": video_of(video_key)}))

    async def watched(self, after: Mapping[str, int]) -> dict[str, tuple[JobState, list[LogLine]]]:
        """State and new log lines (those after the given id) of many jobs, in one query and so consistent."""
        sql = f"""SELECT {STATE_COLUMNS}, l.id, l.message, l.level, l.at
            FROM {self._rows.watched} JOIN request r ON r.id = w.key
            LEFT JOIN request_log l ON l.request_id = r.id AND l.id > CAST(w.value AS bigint)
            ORDER BY l.id"""
        found: dict[str, tuple[JobState, list[LogLine]]] = {}
        for row in await self._rows(sql, {"watched": json.dumps(after)}):
            if row[0] not in found:
                found[row[0]] = (JobState.of(row), [])
            if row[8] is not None:
                found[row[0]][1].append(LogLine(*row[8:]))
        return found

    async def _count_before(self, priority: int, queue_order: int, *, most: int) -> int:
        rows = await self._rows(_COUNT, {"priority": priority, "queue_order": queue_order, "most": most})
        return int(rows[0][0])
