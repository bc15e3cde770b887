"""Removes what has expired, on a thread of its own: a slow object store must not delay a heartbeat."""

import logging
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

from server.db.outage import OUTAGES, is_outage

logger = logging.getLogger(__name__)


class Sweeper:
    """Calls the sweeps one after another, every `every_s` seconds; the failure of one does not stop the others."""

    def __init__(self, sweeps: Sequence[Callable[[], object]], *, every_s: float) -> None:
        self._sweeps = sweeps
        self._every_s = every_s
        self._thread = ThreadPoolExecutor(1, "sweeper")
        self._running: Future[None] | None = None
        self._started_at = -float("inf")

    def start_if_due(self) -> None:
        """Return at once; a sweep that takes longer than the interval is not started twice."""
        now = time.monotonic()
        if now - self._started_at < self._every_s:
            return
        self._started_at = now
        if self._running is None or self._running.done():
            self._running = self._thread.submit(self._sweep)

    def _sweep(self) -> None:
        for sweep in self._sweeps:
            try:
                sweep()
            except Exception as error:
                if is_outage(error):
                    OUTAGES.noticed(error)
                else:
                    logger.exception("what has expired could not be removed; trying again later")
