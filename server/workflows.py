"""The three chained workflows of a job: prepare -> render -> publish.

Each may run again after a crash, so each looks at the job's row first and writes through the store's fences. Only
`render` holds the GPU slot. No exception leaves a workflow: the engine would record it and forget the job.
"""

import logging
import threading
import time
from collections.abc import Callable
from pathlib import Path

from server.engine import enqueue_publish, enqueue_render
from server.errors import (
    ErrorResponse,
    GenerationFailed,
    GpuOutOfMemory,
    InternalError,
    ModelError,
    RunnerDisconnected,
    RunnerStalled,
    StartTimeout,
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
from server.settings import Settings
from server.storage import LocalStorage

logger = logging.getLogger(__name__)

# Delivered sizes (decision 10): width, height at 16:9.
_SIZES = {"512p": (896, 512), "720p": (1280, 720)}


class Workflows:
    """The work of one worker."""

    def __init__(
        self,
        store: JobStore,
        storage: LocalStorage,
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
                self._store.prepared(job.id, self._images.check_in(job))
        except ModelError as error:
            self._store.log(job.id, [("ERROR", str(error))])
            self._store.fail(job.id, error.response())
        except Exception:
            self._fail_unexpectedly(job.id)
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
                    self._store.log(job.id, [("WARN", f"Generator lost: {error}")])
                else:
                    return
        except Exception:
            self._fail_unexpectedly(request_id)

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
            self._store.log(job.id, [("WARN", "The worker is stopping; the job goes on with the next one")])

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
        with JobLog(self._store, job.id) as log:
            for line in [f"Attempt {job.attempt}"] if job.attempt > 1 else _skipped(job):
                log.add(line, "WARN")
            message = self._message(job)
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
                enqueue_publish(job.id, job.attempt, message.output, finished.seconds)
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

    def _message(self, job: Job) -> Generate:
        wanted = job.input
        image = self._storage.find(job.image_key or "")
        if image is None:
            raise FileNotFoundError(f"the identity image of request {job.id} is gone")
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
        return self._storage.rendering(f"{job.id}.checkpoint")

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
            if path.exists():
                self._storage.put(path, key)
            stored = self._storage.find(key)
            if stored is None:
                raise FileNotFoundError(f"the video of request {job.id} is gone")
            if not self._store.complete(job, video_bytes=stored.stat().st_size, inference_time=inference_time):
                self._storage.delete(key)
        except Exception:
            self._fail_unexpectedly(job.id)
        self._forget_checkpoint_if_over(job)

    def _fail_unexpectedly(self, request_id: str) -> None:
        logger.exception("request %s failed", request_id)
        self._store.fail(request_id, InternalError().response())


def _skipped(job: Job) -> list[str]:
    """What the request asked for and this version does not do yet."""
    lines = []
    if job.input.enable_prompt_expansion:
        lines.append("Prompt expansion is not available in this version: skipped")
    if job.input.enable_safety_checker:
        lines.append("The safety checker is not available in this version: skipped")
    return lines
