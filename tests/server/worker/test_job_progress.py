"""What watches a job neither delays nor fails it."""

import base64
import sqlite3
import threading
import time
from typing import Any

import pytest
import sqlalchemy as sa
from dbos import DBOSClient

from server.db.tables import progress_table
from server.generator.messages import Log, Preview, Working
from server.jobs.job import Job
from server.jobs.job_store import JobStore
from server.jobs.progress import ProgressTable
from server.worker.job_progress import JobProgress
from tests.harness.live_server import until
from tests.harness.new_job import new_job

MESSAGES = 2000


@pytest.fixture
def store(database: sa.Engine, engine: DBOSClient) -> JobStore:
    return JobStore(database, engine)


@pytest.fixture
def attempt(store: JobStore) -> Job:
    job = new_job()
    store.add(job)
    claimed = store.claim(job.id, "w")
    assert claimed is not None
    return claimed


def row(database: sa.Engine) -> Any:
    with database.connect() as connection:
        return connection.execute(sa.select(progress_table)).one_or_none()


def working(done: int) -> Working:
    return Working(stage="denoise", done=done, total=MESSAGES, seconds_left=3.5)


def preview(picture: bytes) -> Preview:
    return Preview(picture=base64.b64encode(picture).decode())


@pytest.fixture
def writes(database: sa.Engine) -> list[str]:
    """Statements that have begun to write progress."""
    begun: list[str] = []

    def note(_connection: object, _cursor: object, statement: str, *_: object) -> None:
        if statement.startswith("INSERT INTO progress"):
            begun.append(statement)

    sa.event.listen(database, "before_cursor_execute", note)
    return begun


def test_the_latest_is_written_and_no_more_often_than_it_is_due(
    attempt: Job, database: sa.Engine, writes: list[str]
) -> None:
    began = time.monotonic()
    with JobProgress(ProgressTable(database), attempt, every_s=0.2) as progress:
        progress.on_message(Log(message="nothing to show"))
        progress.on_message(working(0))
        until(lambda: row(database) is not None)
        assert (row(database).done, row(database).preview_version) == (0, 0), "no picture is there yet"
        for done in range(1, MESSAGES + 1):
            if done % 500 == 0:
                progress.on_message(preview(bytes([done // 500])))
            progress.on_message(working(done))
        until(lambda: row(database).done == MESSAGES)
        found = row(database)
        assert (found.stage, found.total, found.seconds_left, found.preview) == ("denoise", MESSAGES, 3.5, b"\x04")
        seen = found.preview_version
        progress.on_message(preview(b"another"))
        until(lambda: row(database).preview == b"another")
        assert row(database).preview_version == seen + 1
    assert len(writes) <= 1 + (time.monotonic() - began) / 0.2


def test_a_database_that_is_away_costs_the_job_nothing(attempt: Job, database: sa.Engine, writes: list[str]) -> None:
    other = sqlite3.connect(str(database.url.database), isolation_level=None)
    with JobProgress(ProgressTable(database), attempt, every_s=0.05) as progress:
        for last in (MESSAGES, 2 * MESSAGES):
            other.execute("BEGIN IMMEDIATE")
            before, began = len(writes), time.monotonic()
            progress.on_message(working(1))
            until(lambda before=before: len(writes) > before)  # it waits for the lock
            for done in range(1, last + 1):
                progress.on_message(working(done))
            assert time.monotonic() - began < 4, "not the five seconds that a writer waits"
            if last == MESSAGES:
                other.execute("ROLLBACK")
                until(lambda: row(database) is not None and row(database).done == MESSAGES)
        left = time.monotonic()
    assert time.monotonic() - left < 4
    other.close()


@pytest.mark.parametrize("picture", ["x", "<svg>", "A" * (2**18 + 4)])
def test_a_picture_that_cannot_be_shown_costs_nothing_else(
    attempt: Job, database: sa.Engine, caplog: pytest.LogCaptureFixture, picture: str
) -> None:
    caplog.set_level("WARNING")  # a command that ran in this process may have left another
    with JobProgress(ProgressTable(database), attempt, every_s=0.01) as progress:
        progress.on_message(working(1))
        progress.on_message(Preview(picture=picture))
        until(lambda: "a preview cannot be shown" in caplog.text)
        progress.on_message(working(2))
        until(lambda: row(database) is not None and row(database).done == 2)
        assert row(database).preview is None
        progress.on_message(preview(b"good"))
        until(lambda: row(database).preview == b"good")


def test_no_room_for_a_thread_costs_the_progress_alone(
    database: sa.Engine, attempt: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    with JobProgress(ProgressTable(database), attempt) as progress:
        progress.on_message(working(1))
