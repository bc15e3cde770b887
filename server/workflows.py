"""The three chained workflows of a job: prepare -> render -> publish.

Each may run again after a crash, so each looks at the job's row first and writes through the store's fences. Only
`render` holds the GPU slot. No exception leaves a workflow: the engine would record it and forget the job.
"""

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TypeVar

from server.engine import enqueue_publish, enqueue_render, enqueue_render_again
from server.errors import (
    ErrorResponse,
    GenerationFailed,
    GpuOutOfMemory,
    InternalError,
    ModelError,
    RunnerDisconnected,
    RunnerStalled,
    StartTimeout,
    StorageAway,
    TryAgainLater,
)
from server.generator import (
    GenerationCancelled,
    GenerationError,
    Generator,
    GeneratorDied,
    GeneratorStalled,
    OutOfMemory,
)
from server.identity_images import IdentityImages
from server.job import Job, Status
from server.job_log import JobLog
from server.job_store import JobStore
from server.messages import Generate
from server.outage import outlast, ride_out
from server.settings import Settings
from server.storage import Storage

logger = logging.getLogger(__name__)

R = TypeVar("R")

# Delivered sizes (decision 10): width, height at 16:9.
_SIZES = {"512p": (896, 512), "720p": (1280, 720)}


class Workflows:
    """The work of one worker."""

    def __init__(
        self,
        store: JobStore,
        storage: Storage,
        generator: Generator,
        settings: Settings,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._store = store
        self._storage = storage
        self._generator = generator
        self._settings = settings
        self._images = IdentityImages(storage, settings)
        self._clock = clock
        self._open = threading.Event()
        self._open.set()
        self._rendering: Job | None = None

    # -- prepare -----------------------------------------------------------------------------------------------

    def prepare(self, request_id: str) -> None:
        """Fetch, check and store the identity image, then wait in line for the GPU."""
        job = self._store.get(request_id)
        if job is None or job.status is Status.COMPLETED:
            return
        try:
            if job.image_key is None:
                self._store.prepared(job.id, self._with_storage(job, lambda: self._images.check_in(job)))
        except ModelError as error:
            self._say(job, str(error), "ERROR")
            self._store.fail(job.id, error.response())
        except Exception as error:
            self._fail_unexpectedly(job.id, error)
        else:
            enqueue_render(job)

    # -- render ------------------------------------------------------------------------------------------------

    def render(self, request_id: str) -> None:
        """Hold the GPU slot: have the generator make the video, then hand it on.

        A generator that dies is an infrastructure fault: the job runs again in a fresh one, up to `max_attempts` times
        and without leaving the slot, so that a poison job delays the others and nothing more.
        """
        try:
            while (job := self._claim(request_id)) is not None:
                try:
                    self._generate(job)
                except GeneratorDied as error:
                    self._say(job, f"Generator lost: {error}")
                else:
                    return
        except Exception as error:
            self._fail_unexpectedly(request_id, error)

    def stop_claiming(self) -> None:
        """From now on every job waits where it is."""
        self._open.clear()

    def claim_again(self) -> None:
        """Take jobs as before."""
        self._open.set()

    def release_running(self) -> None:
        """Give the job that renders back to the queue, without blame."""
        job = self._rendering
        if job is not None and self._store.release(job):
            self._say(job, "The worker is stopping; the job goes on with the next one")

    def _claim(self, request_id: str) -> Job | None:
        self._open.wait()
        self._generator.wait_until_ready()
        job = self._store.claim(request_id, self._settings.worker_id)
        if job is None:
            return None
        refused = self._reason_not_to_run(job)
        if refused is not None:
            self._store.fail(job.id, refused, attempt=job.attempt)
            return None
        return job

    def _reason_not_to_run(self, job: Job) -> ErrorResponse | None:
        if job.attempt == 1 and job.start_deadline is not None and self._clock() > job.start_deadline:
            return StartTimeout().response()
        if job.faults >= (1 if job.no_retry else self._settings.jobs.max_attempts):
            return RunnerDisconnected().response()
        return None

    def _generate(self, job: Job) -> None:
        """One attempt.

        Raises:
            GeneratorDied: another attempt may succeed.
        """
        with JobLog(self._store, job.id) as log, self._local_image(job) as image:
            for line in [f"Attempt {job.attempt}"] if job.attempt > 1 else _skipped(job):
                log.add(line, "WARN")
            message = self._message(job, image)
            self._rendering = job
            try:
                finished = self._generator.run(
                    message,
                    on_message=log.on_message,
                    cancel_requested=lambda: self._store.cancel_is_requested(job.id),
                )
            except GenerationCancelled:
                self._store.finish_cancelled(job)
            except GeneratorStalled as error:
                log.add(str(error), "ERROR")
                self._store.fail(job.id, RunnerStalled().response(), attempt=job.attempt)
            except GenerationError as error:
                logger.warning("request %s: %s", job.id, error)
                self._store.fail(job.id, GenerationFailed().response(), attempt=job.attempt)
            except OutOfMemory as error:
                self._make_room(job, log, error)
            else:
                enqueue_publish(job, self._settings.worker_id, message.output, finished.seconds)
            finally:
                self._rendering = None
                self._forget_checkpoint_if_over(job)

    def _make_room(self, job: Job, log: JobLog, error: OutOfMemory) -> None:
        """Once per job: try again in a fresh generator that keeps less on the GPU."""
        plan = self._generator.shrink() if job.faults == 0 else None
        if plan is None:
            log.add(str(error), "ERROR")
            self._store.fail(job.id, GpuOutOfMemory().response(), attempt=job.attempt)
            return
        log.add(f"Out of GPU memory; trying again with the memory plan {plan}", "WARN")
        raise GeneratorDied("out of memory")

    @contextmanager
    def _local_image(self, job: Job) -> Iterator[Path]:
        """The identity image as a file of this machine."""
        with ExitStack() as stack:
            image = self._with_storage(job, lambda: stack.enter_context(self._storage.local(job.image_key or "")))
            if image is None:
                raise FileNotFoundError(f"the identity image of request {job.id} is gone")
            yield image

    def _message(self, job: Job, image: Path) -> Generate:
        wanted = job.input
        width, height = _SIZES[wanted.resolution]
        if wanted.aspect_ratio == "9:16":
            width, height = height, width
        return Generate(
            request_id=job.id,
            prompt=wanted.prompt,
            negative_prompt=wanted.negative_prompt,
            image=str(image),
            output=str(self._storage.rendering(f"{job.id}-{job.attempt}.mp4")),
            checkpoint=str(self._checkpoint(job)),
            width=width,
            height=height,
            num_frames=wanted.num_frames,
            fps=wanted.fps,
            num_inference_steps=wanted.num_inference_steps,
            guidance_scale=wanted.cfg_scale,
            seed=job.seed,
        )

    def _checkpoint(self, job: Job) -> Path:
        return self._storage.checkpoint(job.id)

    def _forget_checkpoint_if_over(self, job: Job) -> None:
        if self._store.is_over(job.id):
            self._checkpoint(job).unlink(missing_ok=True)

    # -- publish -----------------------------------------------------------------------------------------------

    def publish(self, request_id: str, attempt: int, rendered: str, inference_time: float) -> None:
        """Move the video into storage and record the result. No file without a result, no result without a file."""
        job = self._store.get(request_id)
        path = Path(rendered)
        if job is None or job.status is Status.COMPLETED or job.attempt != attempt:
            path.unlink(missing_ok=True)
            return
        try:
            key = self._store.reserve_video(job, self._storage.new_key("files", f"{job.id}.mp4"))
            if key is None:  # another attempt owns the job by now
                path.unlink(missing_ok=True)
                return
            size = self._with_storage(job, lambda: self._put_once(path, key))
            if size is None:
                self._say(job, "The video was lost with the machine that rendered it")
                enqueue_render_again(job)
            elif not self._store.complete(job, video_bytes=size, inference_time=inference_time):
                self._delete_unless_taken(job, key)
        except Exception as error:
            path.unlink(missing_ok=True)
            self._fail_unexpectedly(job.id, error)
        self._forget_checkpoint_if_over(job)

    def _put_once(self, path: Path, key: str) -> int | None:
        """Bytes of the stored video; None when it is neither here nor, put by an earlier try, in storage."""
        return self._storage.put(path, key) if path.exists() else self._storage.size(key)

    def _delete_unless_taken(self, job: Job, key: str) -> None:
        """A video without a result, unless a later attempt has made the same key its own."""
        now = self._store.get(job.id)
        if now is None or (now.status is Status.COMPLETED and now.video_bytes is None):
            self._storage.delete(key)

    # -- shared ------------------------------------------------------------------------------------------------

    def _with_storage(self, job: Job, call: Callable[[], R]) -> R:
        """Call, and again for a while if the object store is away."""
        jobs = self._settings.jobs
        return outlast(
            call,
            limit_s=jobs.storage_retry_s,
            first_delay_s=jobs.storage_retry_delay_s,
            say=lambda line: self._say(job, line),
        )

    def _say(self, job: Job, line: str, level: str = "WARN") -> None:
        ride_out(self._store.log, job.id, [(level, line)])

    def _fail_unexpectedly(self, request_id: str, error: Exception) -> None:
        logger.error("request %s failed", request_id, exc_info=error)
        away = isinstance(error, StorageAway)
        self._store.fail(request_id, (TryAgainLater() if away else InternalError()).response())


def _skipped(job: Job) -> list[str]:
    """What the request asked for and this version does not do yet."""
    lines = []
    if job.input.enable_prompt_expansion:
        lines.append("Prompt expansion is not available in this version: skipped")
    if job.input.enable_safety_checker:
        lines.append("The safety checker is not available in this version: skipped")
    return lines
