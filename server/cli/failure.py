"""What a command exits with and says on stderr when it cannot do its work: one line, the same codes everywhere.

0    done
1    what was asked for failed, or was found faulty
2    wrong option, setting, database, key, id or input: the same call would end so again
3    refused by the safety checker
130  cancelled, by Ctrl-C or by another call
"""

import sqlite3
import sys
from typing import Final

from server.errors import (
    ContentPolicyViolation,
    ErrorResponse,
    ModelError,
    RequestError,
    ServerError,
    SettingsError,
    reasons,
)
from server.generate.outcome import RequestFailed
from server.jobs.outcomes import CANCELLED as CANCELLED_RESPONSE
from weights.errors import WeightsError, one_line

FAILED: Final = 1
WRONG: Final = 2
REFUSED: Final = 3
CANCELLED: Final = 130

_TRY_AGAIN: Final = {408, 429}  # of the 4xx: the same request may succeed later
_UNUSABLE: Final = {sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT}


def of_response(response: ErrorResponse) -> int:
    """The exit code for the failure of a request."""
    if response.error_type == ContentPolicyViolation.error_type:
        return REFUSED
    if response.error_type == CANCELLED_RESPONSE.error_type:
        return CANCELLED
    return WRONG if 400 <= response.status < 500 and response.status not in _TRY_AGAIN else FAILED


def line_of(response: ErrorResponse) -> str:
    """The API's own messages, each with the field of the input that it is about."""
    body = response.body
    said = reasons(body) if "detail" in body else [str(body.get("status", response.error_type))]
    return " ".join("; ".join(said).split()) or f"HTTP status {response.status}"


def of_error(error: Exception) -> tuple[int, str] | None:
    """The exit code and the line for what a command was ended by; None for a fault of this program."""
    if isinstance(error, RequestFailed | ModelError):
        return of_response(error.response()), line_of(error.response())
    if isinstance(error, RequestError):
        return of_response(error.response()), str(error)
    if isinstance(error, SettingsError):
        return WRONG, str(error)
    if isinstance(error, ServerError | WeightsError | OSError):
        return FAILED, one_line(str(error))
    return _of_database(error)


def _of_database(error: Exception) -> tuple[int, str] | None:
    if "sqlalchemy" not in sys.modules:
        return None
    from sqlalchemy.exc import DBAPIError

    from server.db import outage

    if outage.is_outage(error):
        return FAILED, f"the database does not answer: {outage.one_line(error)}"
    code = getattr(error.orig, "sqlite_errorcode", None) if isinstance(error, DBAPIError) else None
    return (WRONG, f"the database cannot be used: {outage.one_line(error)}") if code in _UNUSABLE else None
