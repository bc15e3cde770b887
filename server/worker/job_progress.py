"""A job's progress on its way from the generator's messages into its row, on a thread of its own.

What watches a job must not slow it down: the generator's messages are only remembered, and written at most once a
second. While the database is away, or slow, they are not written at all.
"""

import base64
import logging
import threading
from types import TracebackType
from typing import Final, Self

from server.db.outage import OUTAGES, is_outage
from server.generator.messages import JobMessage, Preview, Working
from server.jobs.job import Job
from server.jobs.progress import Progress, ProgressTable, version_before

logger = logging.getLogger(__name__)

_EVERY_S: Final = 1.0
_LONGEST_PICTURE: Final = 2**18  # characters; the generator's are at most a third of that


class JobProgress:
    """One attempt. The thread is not waited for at the end: a write that it is busy with has no effect any more."""

    def __init__(self, table: ProgressTable, job: Job, *, every_s: float = _EVERY_S) -> None:
        self._table = table
        self._job = job
        self._every_s = every_s
        self._working: Working | None = None
        self._picture: str | None = None
        self._version = version_before(job)
        self._changing = threading.Lock()
        self._news, self._over = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._write_news, name="job-progress", daemon=True)

    def __enter__(self) -> Self:
        """Begin."""
        try:
            self._thread.start()
        except RuntimeError as error:  # no memory for a thread, say
            logger.warning("request %s: its progress cannot be written; it goes on without: %s", self._job.id, error)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Write no more."""
        self._over.set()
        self._news.set()

    def on_message(self, message: JobMessage) -> None:
        """Remember what the generator reports."""
        with self._changing:
            if isinstance(message, Working):
                self._working = message
            elif isinstance(message, Preview):
                self._picture = message.picture
        self._news.set()

    def _write_news(self) -> None:
        while True:
            self._news.wait()
            self._news.clear()
            if self._over.is_set():
                return
            try:
                self._write()
            except Exception as error:
                if not is_outage(error):
                    logger.exception("request %s: its progress cannot be written; it goes on without", self._job.id)
                    return
                OUTAGES.noticed(error)
            if self._over.wait(self._every_s):
                return

    def _write(self) -> None:
        with self._changing:
            working, picture, self._picture = self._working, self._picture, None
        if working is None:
            return
        content = None if picture is None else self._decoded(picture)
        if content is not None:
            self._version += 1
        version = None if content is None else self._version
        now = Progress(working.stage, working.done, working.total, working.seconds_left, version)
        self._table.write(self._job, now, content)

    def _decoded(self, picture: str) -> bytes | None:
        """None for one that is none, or would swell the database: that costs the picture alone."""
        try:
            if len(picture) > _LONGEST_PICTURE:
                raise ValueError(f"{len(picture)} characters")
            return base64.b64decode(picture, validate=True)
        except ValueError as error:
            logger.warning("request %s: a preview cannot be shown: %s", self._job.id, error)
            return None
