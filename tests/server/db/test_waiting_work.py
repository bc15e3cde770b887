"""Who waits for work is woken by it, and never waits because the question fails."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import sqlalchemy as sa

from server.db.waiting_work import NOW, WaitingWork
from tests.harness.live_server import until

EVERY_S = 0.02
LONG_S = 1.0  # many rounds

_table = sa.table("bell", sa.column("at"))
_RUNG = {"bell": sa.select(sa.literal(1)).select_from(_table).where(_table.c.at <= NOW)}


@pytest.fixture(scope="module")
def database(either_database: sa.Engine) -> sa.Engine:
    return either_database


def _do(database: sa.Engine, sql: str) -> None:
    with database.begin() as transaction:
        transaction.exec_driver_sql(sql)


@contextmanager
def _asking(database: sa.Engine) -> Iterator[WaitingWork]:
    work = WaitingWork(database, _RUNG, every_s=EVERY_S)
    work.start()
    try:
        yield work
    finally:
        work.stop()


def _waits(work: WaitingWork) -> bool:
    """Whether there is a time without work."""

    def wait_often() -> None:
        for _ in range(1000):
            work.wait("bell")

    waiting = threading.Thread(target=wait_often, daemon=True)
    waiting.start()
    waiting.join(LONG_S)
    return waiting.is_alive()


def test_work_wakes_who_waits_for_it(database: sa.Engine) -> None:
    _do(database, "CREATE TABLE bell (at DOUBLE PRECISION)")
    with _asking(database) as work:
        until(lambda: not work._found)  # at first it says that there is work
        rung = threading.Timer(LONG_S / 4, _do, (database, "INSERT INTO bell VALUES (1.0)"))
        began = time.monotonic()
        rung.start()
        work.wait("bell")
        assert LONG_S / 4 <= time.monotonic() - began < LONG_S * 5, "when it came, and not when its patience was over"
        rung.join()
        _do(database, "UPDATE bell SET at = 4e9")  # due in a hundred years
        until(lambda: not work._found)
        assert _waits(work)
    work.wait("bell")  # it was stopped
    _do(database, "DROP TABLE bell")


def test_what_never_began_to_ask_can_be_stopped(database: sa.Engine) -> None:
    """A worker that is stopped before its database has answered."""
    work = WaitingWork(database, _RUNG, every_s=EVERY_S)
    work.stop()
    work.wait("bell")


def test_a_question_that_fails_holds_up_nobody_and_is_asked_again(
    database: sa.Engine, caplog: pytest.LogCaptureFixture
) -> None:
    with _asking(database) as work:
        until(lambda: bool(caplog.records))
        time.sleep(5 * EVERY_S)
        for _ in range(100):
            work.wait("bell")
        assert len(caplog.records) == 1, "not at every round"
        _do(database, "CREATE TABLE bell (at DOUBLE PRECISION)")
        until(lambda: not work._found)
        assert _waits(work)
    _do(database, "DROP TABLE bell")
