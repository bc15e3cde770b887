"""What the three workflows of a job share: its log, its checkpoint, and a storage that may be away for a while."""

import logging
from collections.abc import Callable
from typing import TypeVar

from server.db.outage import is_outage, outlast, ride_out
from server.errors import INTERNAL_ERROR, ErrorResponse, StorageAway, TryAgainLater
from server.jobs.job import Job
from server.jobs.job_store import JobStore
from server.settings import Settings
from server.storage.files import Storage
from server.worker.measuring import Measuring

logger = logging.getLogger(__name__)

R = TypeVar("R")


class Workflow:
    """Prepare, render or publish.

    Each may run again after a crash, so each looks at the job's row first and writes through the store's fences. No
    exception leaves a workflow: DBOS would record it and forget the job.
    """

    def __init__(
        self, store: JobStore, storage: Storage, settings: Settings, *, measuring: Measuring | None = None
    ) -> None:
        self._measuring = measuring or Measuring()
        self._store = store
        self._storage = storage
        self._settings = settings

    def _with_storage(self, job: Job, call: Callable[[], R]) -> R:
        """Call, and again for a while if the object store is away or the disk is full.

        Raises:
            GivenUp: the job was cancelled, or goes on elsewhere.
        """
        jobs = self._settings.jobs
        return outlast(
            call,
            limit_s=jobs.storage_retry_s,
            first_delay_s=jobs.storage_retry_delay_s,
            say=lambda message: self._log(job, message),
            given_up=lambda: self._store.is_unwanted(job),
            look_every_s=jobs.cancel_poll_s,
        )

    def _log(self, job: Job, message: str, level: str = "WARN") -> None:
        """Add a message to the job's log, however long the database is away."""
        ride_out(self._store.log, job, [(level, message)])

    def _forget_checkpoint_if_over(self, request_id: str) -> None:
        """Remove what the next attempt would have gone on from."""
        if self._store.is_over(request_id):
            self._storage.scratch.forget_checkpoint(request_id)


def unexpected_error(request_id: str, error: Exception) -> ErrorResponse:
    """What the user is told of an error that no workflow foresaw; the log has the rest."""
    logger.error("request %s failed", request_id, exc_info=error)
    away = isinstance(error, StorageAway) or is_outage(error)
    return TryAgainLater().response() if away else INTERNAL_ERROR
