"""The last workflow of a job: its video goes from the worker's disk into storage while the GPU does other work."""

import logging
from pathlib import Path

from server.db.outage import GivenUp
from server.errors import StorageAway
from server.jobs.job import Job, Status, thumbnail_of
from server.storage.scratch import scratch_thumbnail
from server.tracing.spans import current_span, step, within
from server.worker.job_spans import job_span
from server.worker.workflow import Workflow, unexpected_error

logger = logging.getLogger(__name__)


class PublishWorkflow(Workflow):
    """Several run at once. No file without a result, no result without a file."""

    def run(self, request_id: str, video_key: str, rendered: str, inference_time: float) -> None:
        """Move the video into storage and record the result."""
        job = None
        path = Path(rendered)
        try:
            job = self._store.get(request_id)
            if job is not None and job.status is not Status.COMPLETED and job.video_key == video_key:
                with within(job_span("publish", job)):
                    self._publish(job, path, inference_time)
        except Exception as error:
            response = unexpected_error(request_id, error)
            if job is not None:
                self._store.fail(job.id, response, attempt=job.attempt)
        self._tidy_up(request_id, video_key, path, image_key=None if job is None else job.image_key)

    def _publish(self, job: Job, path: Path, inference_time: float) -> None:
        key = job.video_key or ""
        try:
            self._keep_cut_out(job)
            with self._measuring.timed("publish"), step("store"):
                size = self._with_storage(job, lambda: self._put_once(path, key))
        except GivenUp:
            self._store.finish_cancelled(job)
            return
        if size is None:
            self._log(job, "The video was lost with the machine that rendered it")
            current_span().failed("video_lost")
            self._store.render_again(job)
            return
        with step("store thumbnail"):
            thumbnail = self._keep_thumbnail(job, path, thumbnail_of(key))
        with step("transaction"):
            self._store.complete(job, video_bytes=size, inference_time=inference_time, thumbnail_key=thumbnail)

    def _keep_cut_out(self, job: Job) -> None:
        """The identity image that is kept is the one the video was made from; its text chunk says what was done."""
        path, key = self._storage.scratch.cut_out(job.id), job.image_key
        if key is not None and path.exists():
            self._with_storage(job, lambda: self._put_once(path, key))

    def _keep_thumbnail(self, job: Job, video: Path, key: str) -> str | None:
        """The key of the picture that the generator left beside the video; a video is worth having without one."""
        try:
            return None if self._put_once(scratch_thumbnail(video), key) is None else key
        except (OSError, StorageAway) as error:
            logger.warning("request %s: its thumbnail could not be stored: %s", job.id, error)
            return None

    def _put_once(self, path: Path, key: str) -> int | None:
        """Bytes of the stored file; None when it is neither here nor, put by an earlier try, in storage."""
        try:
            return self._storage.put(path, key)
        except FileNotFoundError:  # asking first would be of no use: a frozen publisher may do this at the same time
            return self._storage.size(key)

    def _tidy_up(self, request_id: str, video_key: str, path: Path, *, image_key: str | None) -> None:
        """Remove what no row names: the video's key belongs to one attempt, so nothing else can need it."""
        self._storage.scratch.forget_rendering(path)
        job = self._store.get(request_id)
        if job is None or job.video_key != video_key or job.video_bytes is None:
            self._storage.discard(video_key)
        thumbnail = thumbnail_of(video_key)
        if job is None or job.thumbnail_key != thumbnail:
            self._storage.discard(thumbnail)
        if image_key is not None and (job is None or job.image_key is None):  # removed, and put again by a frozen one
            self._storage.discard(image_key)
        self._forget_checkpoint_if_over(request_id)
