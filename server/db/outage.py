"""Outages of the database or the object store: how they are told from other errors, and how long they are waited for.

The API does not wait: it answers 503 at once. A worker waits for the database however long it takes, because its jobs
would be lost otherwise, and for the object store up to a limit. A call may have succeeded although its answer was
lost, so only calls that may be repeated are passed to these functions.
"""

import errno
import logging
import sqlite3
import time
from collections.abc import Callable
from typing import Final, ParamSpec, TypeVar

import psycopg
import sqlalchemy as sa

from server.errors import ServerError, StorageAway

logger = logging.getLogger(__name__)

P = ParamSpec("P")
R = TypeVar("R")

_FIRST_DELAY_S: Final = 0.1
_LONGEST_DELAY_S: Final = 2.0
_LONGEST_STORAGE_DELAY_S: Final = 30.0
_READ_ONLY: Final = "25006"  # what the old primary says after a failover
_PASSING: Final = {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_FULL}


def is_outage(error: BaseException) -> bool:
    """Whether the same call may succeed later: no connection, a stopping server, a lock held too long, a full disk."""
    if isinstance(error, sa.exc.TimeoutError):  # no free connection in the pool
        return True
    if isinstance(error, sa.exc.DBAPIError):
        return error.connection_invalidated or (error.orig is not None and is_outage(error.orig))
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        return True
    if isinstance(error, sqlite3.OperationalError):
        return error.sqlite_errorcode & 0xFF in _PASSING  # the higher bits give the cause
    if isinstance(error, psycopg.Error) and error.sqlstate == _READ_ONLY:
        return True
    # Shutdown, crash, refused and lost connections, too many of them, deadlocks.
    return isinstance(error, psycopg.OperationalError | psycopg.InterfaceError)


def ride_out(call: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
    """Call until the database answers; other errors pass."""
    delay = _FIRST_DELAY_S
    while True:
        try:
            return call(*args, **kwargs)
        except Exception as error:
            if not is_outage(error):
                raise
            logger.warning("the database is away, trying again in %.1f s: %s", delay, one_line(error))
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
    """Call until the object store answers.

    Raises:
        StorageAway: it has been away for longer than the limit.
        GivenUp: `given_up` is true before it answers.
    """
    deadline, delay = time.monotonic() + limit_s, first_delay_s
    while True:
        if given_up():
            raise GivenUp
        try:
            return call()
        except StorageAway as error:
            if time.monotonic() + delay > deadline:
                raise
            if delay == first_delay_s:
                say("The storage is away; trying again")
            logger.warning("the storage is away, trying again in %.1f s: %s", delay, one_line(error))
        again_at = time.monotonic() + delay
        while (left := again_at - time.monotonic()) > 0 and not given_up():
            time.sleep(min(left, look_every_s))
        delay = min(delay * 2, _LONGEST_STORAGE_DELAY_S)


def one_line(error: BaseException) -> str:
    """The error for the log, without the statement and its values."""
    cause = error.orig if isinstance(error, sa.exc.DBAPIError) else error
    return " ".join(str(cause).split())[:200]
