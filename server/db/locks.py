"""Locks between processes: advisory locks of Postgres, and a file lock for SQLite, whose processes share a machine.

A transaction of SQLite that begins with a write, as those here do, excludes all others, so it takes no lock of its own.
"""

import fcntl
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Final

import sqlalchemy as sa

# Any numbers that are ours: all advisory locks of a database share one space, those with two numbers another one.
_MIGRATION: Final = 0x48594341
_QUEUE: Final = 0x48594342
_UPLOADS: Final = 0x48594343
_POLL_S: Final = 0.1


def lock_queue(transaction: sa.Connection) -> None:
    """Keep others from changing the order of the queue until this transaction ends.

    What was read of the order is then still true when the new job is written.
    """
    if transaction.dialect.name != "sqlite":
        transaction.execute(sa.select(sa.func.pg_advisory_xact_lock(_QUEUE)))


def lock_uploads(transaction: sa.Connection, owner: str) -> None:
    """The same for the sum of an owner's uploads; those of other owners and submits go on."""
    if transaction.dialect.name != "sqlite":
        transaction.execute(sa.select(sa.func.pg_advisory_xact_lock(_UPLOADS, sa.func.hashtext(owner))))


def migration_lock(database: sa.Engine, file: Path) -> AbstractContextManager[None]:
    """Held while tables change: on Postgres in the database, since its processes may run on several machines."""
    return _file_lock(file) if database.dialect.name == "sqlite" else _advisory_lock(database)


@contextmanager
def _file_lock(path: Path) -> Iterator[None]:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


@contextmanager
def _advisory_lock(database: sa.Engine) -> Iterator[None]:
    # Polled, outside of transactions: the migration of DBOS builds indexes concurrently, which waits for the
    # statements of all other connections to end, one that waits for this lock included.
    with database.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        while not connection.execute(sa.select(sa.func.pg_try_advisory_lock(_MIGRATION))).scalar_one():
            time.sleep(_POLL_S)
        try:
            yield
        finally:
            connection.execute(sa.select(sa.func.pg_advisory_unlock(_MIGRATION)))
