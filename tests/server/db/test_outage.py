"""What counts as an outage, and the two lines that the log has of one."""

import errno
import logging
import os
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
import sqlalchemy as sa

from server.db.connection import create_engine
from server.db.outage import OutageFilter, Outages, is_outage


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO])
def test_a_disk_that_takes_nothing_is_an_outage(number: int) -> None:
    assert is_outage(OSError(number, os.strerror(number)))


def test_other_errors_are_none(database: sa.Engine) -> None:
    with database.connect() as connection, pytest.raises(sa.exc.OperationalError) as unknown:
        connection.exec_driver_sql("SELECT * FROM nothing")
    assert not is_outage(unknown.value)
    assert not is_outage(FileNotFoundError(errno.ENOENT, "no such file"))


def test_a_connection_that_cannot_write_is_replaced(tmp_path: Path) -> None:
    """SQLite opens a read-only file without complaint, and that connection never writes again."""
    path = tmp_path / "x.sqlite"
    with closing(sqlite3.connect(path)) as made:
        made.execute("CREATE TABLE x (y)")
    engine = create_engine(f"sqlite:///{path}")
    with engine.connect() as connection:
        connection.exec_driver_sql("PRAGMA query_only = ON")
    with pytest.raises(sa.exc.OperationalError) as refused, engine.begin() as connection:
        connection.exec_driver_sql("INSERT INTO x VALUES (1)")
    assert is_outage(refused.value)
    with engine.begin() as connection:
        connection.exec_driver_sql("INSERT INTO x VALUES (1)")
    engine.dispose()


def test_an_outage_is_two_lines_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    now = 0.0
    outages = Outages(clock=lambda: now)
    full = OSError(errno.ENOSPC, "No space left on device")
    outages.written()
    for second in range(60):
        now = float(second)
        outages.noticed(full)
        outages.written()  # some writes find room, others do not
    now += 10
    outages.written()
    outages.written()
    assert [record.getMessage() for record in caplog.records] == [
        "the disk is away; what is running goes on: [Errno 28] No space left on device",
        "the disk is back after 59 s",
    ]


def test_what_a_library_logs_of_an_outage_is_left_out() -> None:
    record = logging.makeLogRecord({"msg": "Exception encountered"})
    assert OutageFilter().filter(record)
    try:
        raise OSError(errno.EROFS, "Read-only file system")
    except OSError:
        assert not OutageFilter().filter(record)
