"""Outages of the database or the object store: how they are told from other errors, and how long they are waited for.

The API does not wait: it answers 503 at once. A worker waits for the database however long it takes, because its jobs
would be lost otherwise, and for the object store up to a limit. A call may have succeeded although its answer was
lost, so only calls that may be repeated are passed to these functions.
"""

import logging
import sqlite3
import sys
import threading
import time
from collections.abc import Callable
from typing import Final, ParamSpec, TypeVar

import psycopg
import sqlalchemy as sa

from server.errors import ServerError, StorageAway, is_disk_error

logger = logging.getLogger(__name__)

P = ParamSpec("P")
R = TypeVar("R")

_FIRST_DELAY_S: Final = 0.1
_LONGEST_DELAY_S: Final = 2.0
_LONGEST_STORAGE_DELAY_S: Final = 30.0
_READ_ONLY: Final = "25006"  # what the old primary says after a failover
_NO_SPACE: Final = "53100"
_LOCKED: Final = {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}
# Another look at the file may find it writable again: a volume that is mounted read-only, missing, broken or full.
_AWAY: Final = {sqlite3.SQLITE_READONLY, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_FULL}
_CALM_S: Final = 5.0  # without a failure, until an outage counts as over


def is_outage(error: BaseException) -> bool:
    """Whether the same call may succeed later.

    No connection, a stopping server, a lock held too long, a database that can only be read, a full disk.
    """
    if isinstance(error, sa.exc.TimeoutError):  # no free connection in the pool
        return True
    if isinstance(error, sa.exc.DBAPIError):
        return error.connection_invalidated or (error.orig is not None and is_outage(error.orig))
    if isinstance(error, OSError):
        return is_disk_error(error)
    if isinstance(error, sqlite3.OperationalError):
        return _sqlite_code(error) in _LOCKED | _AWAY
    if isinstance(error, psycopg.Error) and error.sqlstate == _READ_ONLY:
        return True
    # Shutdown, crash, refused and lost connections, too many of them, deadlocks.
    return isinstance(error, psycopg.OperationalError | psycopg.InterfaceError)


def needs_new_connection(error: BaseException) -> bool:
    """Whether this connection would say the same for ever.

    One that SQLite opened while the file was read-only never writes, and one to an old primary leads to no other.
    """
    if isinstance(error, sqlite3.OperationalError):
        return _sqlite_code(error) in _AWAY
    return isinstance(error, psycopg.Error) and error.sqlstate in {_READ_ONLY, _NO_SPACE}


def _sqlite_code(error: sqlite3.OperationalError) -> int | None:
    """Without the higher bits, which give the cause; None for errors that Python itself raises."""
    code: int | None = getattr(error, "sqlite_errorcode", None)
    return None if code is None else code & 0xFF


class Outages:
    """What the log of a process says of them: one line when the database or the disk goes, one when it is back.

    All threads tell it of their failures; that it is back shows in a write that succeeds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._since: float | None = None
        self._last_at = 0.0
        self._what = "database"

    @property
    def lasting(self) -> bool:
        """Whether there is one that is not known to be over."""
        return self._since is not None

    def noticed(self, error: BaseException) -> None:
        """A call failed for an outage."""
        with self._lock:
            known, self._last_at = self._since is not None, self._clock()
            if not known:
                self._since = self._last_at
                self._what = "disk" if isinstance(error, OSError) else "database"
        if not known:
            logger.warning("the %s is away; what is running goes on: %s", self._what, one_line(error))

    def written(self) -> None:
        """A write succeeded. After a while without a failure the outage is over."""
        with self._lock:
            if self._since is None or self._clock() - self._last_at < _CALM_S:
                return
            seconds, self._since = self._last_at - self._since, None
        logger.warning("the %s is back after %.0f s", self._what, seconds)


OUTAGES: Final = Outages()


class OutageFilter(logging.Filter):
    """For the logger of a library that logs every failed call: those of an outage become its one line."""

    def filter(self, record: logging.LogRecord) -> bool:
        """False for a record that is logged while an outage is being handled."""
        error = record.exc_info[1] if record.exc_info else sys.exc_info()[1]
        if error is None or not is_outage(error):
            return True
        OUTAGES.noticed(error)
        return False


def ride_out(call: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
    """Call until the database answers; other errors pass."""
    delay = _FIRST_DELAY_S
    while True:
        try:
            return call(*args, **kwargs)
        except Exception as error:
            if not is_outage(error):
                raise
            OUTAGES.noticed(error)
        time.sleep(delay)
        delay = min(delay * 2, _LONGEST_DELAY_S)


class GivenUp(ServerError):
    """The result of what was tried is not wanted any more."""


def outlast(
    call: Callable[[], R],
    *,
    limit_s: float,
    first_delay_s: float,
    say: Callable[[str], None],
    given_up: Callable[[], bool],
    look_every_s: float,
) -> R:
    """Call until the object store answers, or the disk has room.

    Raises:
        StorageAway, OSError: it has been away, or full, for longer than the limit.
        GivenUp: `given_up` is true before it answers.
    """
    deadline, delay = time.monotonic() + limit_s, first_delay_s
    while True:
        if given_up():
            raise GivenUp
        try:
            return call()
        except (StorageAway, OSError) as error:
            if isinstance(error, OSError) and not is_outage(error):
                raise
            if time.monotonic() + delay > deadline:
                raise
            if delay == first_delay_s:
                say("The storage is away; trying again")
            if isinstance(error, OSError):
                OUTAGES.noticed(error)
            elif delay == first_delay_s:
                logger.warning("the storage is away, trying again for %.0f s: %s", limit_s, one_line(error))
        again_at = time.monotonic() + delay
        while (left := again_at - time.monotonic()) > 0 and not given_up():
            time.sleep(min(left, look_every_s))
        delay = min(delay * 2, _LONGEST_STORAGE_DELAY_S)


def one_line(error: BaseException) -> str:
    """The error for the log, without the statement and its values."""
    cause = error.orig if isinstance(error, sa.exc.DBAPIError) else error
    return " ".join(str(cause).split())[:200]
