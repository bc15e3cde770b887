"""A job's log while it renders: messages are written in batches, so that progress costs few transactions."""

import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Self

from server.db.outage import OUTAGES, is_outage, ride_out
from server.generator.messages import JobMessage, Log
from server.jobs.job import Job
from server.jobs.job_store import JobStore

_BATCH_S = 0.5


class JobLog:
    """Collects messages and writes them at most twice a second; the rest is written at the end.

    `write` may be called from another thread, by a worker that stops before the job's end.
    """

    def __init__(self, store: JobStore, job: Job, clock: Callable[[], float] = time.monotonic) -> None:
        self._store = store
        self._job = job
        self._clock = clock
        self._unwritten: list[tuple[str, str]] = []
        self._writing = threading.Lock()
        self._written_at = 0.0

    def __enter__(self) -> Self:
        """Begin."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Write what is left, whenever that is possible."""
        ride_out(self.write)

    def on_message(self, message: JobMessage) -> None:
        """Take what the generator reports; the rest adds nothing, but messages that wait may be written."""
        if isinstance(message, Log):
            self.add(message.message, message.level)
        elif self._clock() - self._written_at >= _BATCH_S:
            self._flush()

    def add(self, message: str, level: str = "INFO") -> None:
        """Add a message."""
        self._unwritten.append((level, message))
        if self._clock() - self._written_at >= _BATCH_S:
            self._flush()

    def write(self) -> None:
        """Write what is left; kept if that fails."""
        with self._writing:
            messages = list(self._unwritten)
            self._store.log(self._job, messages)
            del self._unwritten[: len(messages)]

    def _flush(self) -> None:
        try:
            self.write()
        except Exception as error:
            if not is_outage(error):
                raise
            OUTAGES.noticed(error)  # the job goes on; the messages are kept for the next time
        self._written_at = self._clock()  # by now: a slow write must not be waited for with every message
