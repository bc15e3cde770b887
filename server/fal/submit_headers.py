"""What the headers of a submit ask for, beyond the model's input.

Honoured: X-Fal-Queue-Priority, X-Fal-Request-Timeout, X-Fal-No-Retry, X-Fal-Store-IO,
X-Fal-Object-Lifecycle-Preference (its expiry), Idempotency-Key. X-Fal-Runner-Hint is accepted and means nothing here:
there is one model. Only a bad timeout and a bad key are refused; fal ignores what it cannot read in the others.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import Final, Self

from server.errors import BadRequest

_SHORTEST_TIMEOUT_S: Final = 0.1
_LONGEST_KEY: Final = 255
_YES: Final = {"1", "true", "yes"}
_NO: Final = {"0", "false", "no"}


class Priority(IntEnum):
    """`X-Fal-Queue-Priority`: every low job waits behind all normal ones."""

    NORMAL = 0
    LOW = 1


@dataclass(frozen=True, slots=True)
class SubmitOptions:
    """The parsed headers; `start_timeout_s` limits the wait for the generator, not the whole job."""

    priority: Priority = Priority.NORMAL
    start_timeout_s: float | None = None
    no_retry: bool = False
    store_io: bool = True
    media_ttl_s: float | None = None
    idempotency_key: str | None = None

    @classmethod
    def from_headers(cls, headers: Mapping[str, str]) -> Self:
        """Read the headers.

        Raises:
            BadRequest: an unreadable timeout or idempotency key.
        """
        return cls(
            priority=Priority.LOW if _word(headers, "x-fal-queue-priority") == "low" else Priority.NORMAL,
            start_timeout_s=_start_timeout(headers.get("x-fal-request-timeout")),
            no_retry=_word(headers, "x-fal-no-retry") in _YES,
            store_io=_word(headers, "x-fal-store-io") not in _NO,
            media_ttl_s=lifetime_s(headers.get("x-fal-object-lifecycle-preference")),
            idempotency_key=_key(headers.get("idempotency-key")),
        )


def _word(headers: Mapping[str, str], name: str) -> str:
    return headers.get(name, "").strip().lower()


def _start_timeout(value: str | None) -> float | None:
    if value is None:
        return None
    try:
        seconds = float(value)
    except ValueError:
        seconds = math.nan
    if not _SHORTEST_TIMEOUT_S < seconds < math.inf:
        raise BadRequest(f"X-Fal-Request-Timeout must be a number of seconds greater than {_SHORTEST_TIMEOUT_S}")
    return seconds


def lifetime_s(value: str | None) -> float | None:
    """Seconds to keep a file, from fal's lifecycle headers; malformed JSON is ignored, as on fal."""
    try:
        wanted = json.loads(value or "null", parse_int=float)  # any number of digits: at worst infinity
    except (ValueError, RecursionError):
        return None
    seconds = wanted.get("expiration_duration_seconds") if isinstance(wanted, dict) else None
    return seconds if isinstance(seconds, float) and 0 < seconds < math.inf else None


def _key(value: str | None) -> str | None:
    if value is None:
        return None
    if not 0 < len(value) <= _LONGEST_KEY or not value.isprintable():
        raise BadRequest(f"Idempotency-Key must have 1 to {_LONGEST_KEY} printable characters")
    return value
