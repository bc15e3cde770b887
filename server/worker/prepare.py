"""The first workflow of a job: its identity image is fetched, checked and stored while the GPU does other work."""

import logging

from server.db.outage import GivenUp
from server.errors import ModelError
from server.jobs.job import Job, Status
from server.jobs.job_store import JobStore
from server.settings import Settings
from server.storage.files import Storage
from server.tracing.spans import current_span, within
from server.worker.identity_images import IdentityImages
from server.worker.job_spans import job_span
from server.worker.measuring import Measuring
from server.worker.workflow import Workflow, unexpected_error

logger = logging.getLogger(__name__)


class PrepareWorkflow(Workflow):
    """Several run at once."""

    def __init__(
        self, store: JobStore, storage: Storage, settings: Settings, *, measuring: Measuring | None = None
    ) -> None:
        super().__init__(store, storage, settings, measuring=measuring)
        self._images = IdentityImages(storage, settings)

    def run(self, request_id: str) -> None:
        """Fetch, check and store the identity image, then queue the job for the GPU."""
        job = None
        try:
            job = self._store.get(request_id)
            if job is not None and job.status is not Status.COMPLETED:
                with within(job_span("prepare", job)):
                    self._prepare(job)
        except GivenUp:
            logger.info("request %s was cancelled while its image was prepared", request_id)
        except Exception as error:
            response = unexpected_error(request_id, error)
            if job is not None:
                self._store.refuse(job, response)

    def _prepare(self, job: Job) -> None:
        try:
            with self._measuring.timed("prepare"):
                key = job.image_key or self._with_storage(job, lambda: self._images.check_in(job))
        except ModelError as error:
            self._log(job, str(error), "ERROR")
            current_span().failed(error.error_type)
            self._store.refuse(job, error.response())
            return
        kept = self._store.prepared(job, key)
        if key not in {kept, job.image_key}:  # the job is over, or another try was faster
            self._storage.discard(key)
