"""A token bucket per owner, in the memory of one API process."""

import time
from collections.abc import Callable

from server.errors import TooManyRequests


class RateLimit:
    """`per_s` calls sustained, `burst` at once. Owners come from keys, so the table cannot grow without bounds."""

    def __init__(self, per_s: float, burst: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._per_s = per_s
        self._burst = burst
        self._clock = clock
        self._buckets: dict[str, tuple[float, float]] = {}

    def take(self, owner: str) -> None:
        """Count one call.

        Raises:
            TooManyRequests: with the time after which the next one is accepted.
        """
        now = self._clock()
        tokens, at = self._buckets.get(owner, (float(self._burst), now))
        tokens = min(float(self._burst), tokens + (now - at) * self._per_s)
        if tokens < 1:
            self._buckets[owner] = (tokens, now)
            raise TooManyRequests(retry_after_s=(1 - tokens) / self._per_s)
        self._buckets[owner] = (tokens - 1, now)
