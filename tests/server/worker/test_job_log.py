"""A job's log is written while the job runs, and in batches, however slow the database is."""

import sqlite3
from typing import Any

import sqlalchemy as sa

from server.generator.messages import Log, Working
from server.worker.job_log import JobLog


class SlowStore:
    """Takes three seconds to say that it cannot write, until it can."""

    def __init__(self, now: list[float]) -> None:
        self.now, self.away, self.calls = now, True, 0
        self.lines: list[str] = []

    def log(self, _job: object, messages: list[tuple[str, str]]) -> None:
        self.calls += 1
        if self.away:
            self.now[0] += 3
            raise sa.exc.DBAPIError("", None, sqlite3.OperationalError(), connection_invalidated=True)
        self.lines += [text for _, text in messages]


def test_a_slow_database_is_not_waited_for_with_every_message() -> None:
    now = [1.0]
    store: Any = SlowStore(now)
    log = JobLog(store, store, clock=lambda: now[0])
    for number in range(100):
        log.on_message(Log(message=f"line {number}"))
        log.on_message(Working(stage="denoise", done=number, total=100))
    assert store.calls == 1
    store.away = False
    now[0] += 1
    log.on_message(Working(stage="denoise", done=100, total=100))
    assert store.lines == [f"line {number}" for number in range(100)]
