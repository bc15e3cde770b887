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

from dbos import DBOSClient

from server.db.outage import GivenUp, outlast, ride_out
from server.errors import INTERNAL_ERROR, ErrorResponse, ModelError, StorageAway, TryAgainLater
from server.generator.messages import Finished, Generate
from server.generator.parent import (
    GenerationCancelled,
    GenerationError,
    Generator,
    GeneratorDied,
    GeneratorStalled,
    OutOfMemory,
)
from server.jobs.dbos_queues import give_back_render, running_workflow
from server.jobs.job import Job, Rendered, Status
from server.jobs.job_store import JobStore
from server.jobs.outcomes import (
    GENERATION_FAILED,
    GPU_OUT_OF_MEMORY,
    RUNNER_DISCONNECTED,
    RUNNER_STALLED,
    START_TIMEOUT,
)
from server.settings import Settings
from server.storage.local import Storage
from server.worker.identity_images import IdentityImages
from server.worker.job_log import JobLog

logger = logging.getLogger(__name__)

R = TypeVar("R")

# Delivered sizes (decision 10): width, height at 16:9.
_SIZES = {"512p": (896, 512), "720p": (1280, 720)}
_CLAIM_S = 1.0


class Workflows:
    """The work of one worker."""

    def __init__(
        self,
        store: JobStore,
        storage: Storage,
        generator: Generator,
        engine: DBOSClient,
        *,
        settings: Settings,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._store = store
        self._storage = storage
        self._generator = generator
        self._engine = engine
        self._settings = settings
        self._images = IdentityImages(storage, settings)
        self._clock = clock
        self._open = threading.Event()
        self._open.set()
        self._claiming = threading.Lock()
        self._rendering: tuple[Job, str] | None = None
        self._made_room_for: str | None = None

    # -- prepare -----------------------------------------------------------------------------------------------

    def prepare(self, request_id: str) -> None:
        """Fetch, check and store the identity image, then wait in line for the GPU."""
        job = None
        try:
            job = self._store.get(request_id)
            if job is not None and job.status is not Status.COMPLETED:
                self._prepare(job)
        except GivenUp:
            logger.info("request %s was cancelled while its image was prepared", request_id)
        except Exception as error:
            response = _unexpected(request_id, error)
            if job is not None:
                self._store.refuse(job, response)

    def _prepare(self, job: Job) -> None:
        try:
            key = job.image_key or self._with_storage(job, lambda: self._images.check_in(job))
        except ModelError as error:
            self._say(job, str(error), "ERROR")
            self._store.refuse(job, error.response())
            return
        kept = self._store.prepared(job, key, self._engine)
        if key not in {kept, job.image_key}:  # the job is over, or another try was faster
            self._storage.discard(key)

    # -- render ------------------------------------------------------------------------------------------------

    def render(self, request_id: str) -> None:
        """Hold the GPU slot: have the generator make the video, then hand it on.

        A job that has to wait goes back into the engine's line at once, for any worker, while this call stays: it
        keeps the slot taken until this worker can take a job again.
        """
        job = None
        try:
            job = self._store.get(request_id)
            if job is None or self._attempt(job):
                return
            ride_out(give_back_render, self._engine, running_workflow(), self._settings.worker_id)
            self._open.wait()
            self._generator.wait_until_ready()
        except Exception as error:
            response = _unexpected(request_id, error)
            if job is not None:
                self._store.fail(job.id, response, attempt=job.attempt)

    def stop_claiming(self) -> None:
        """From now on every job waits where it is."""
        self._open.clear()

    def claim_again(self) -> None:
        """Take jobs as before."""
        self._open.set()

    def release_running(self) -> None:
        """Give the job that renders back to the queue, without blame. The last call: no claim succeeds after it."""
        if not self._claiming.acquire(timeout=_CLAIM_S):
            return  # the database is away: whoever finds the claim made counts it
        rendering = self._rendering
        if rendering is None:
            return
        job, workflow_id = rendering
        if self._store.release(job):
            self._store.log(job, [("WARN", "The worker is stopping; the job goes on with the next one")])
        give_back_render(self._engine, workflow_id, self._settings.worker_id)

    def _attempt(self, job: Job) -> bool:
        """Claim a job and render it; False: it has to wait, for this worker or another."""
        with self._generator.reserved() as ready:
            if not ready:
                return False
            with self._claiming:
                if not self._open.is_set():
                    return False
                claimed = self._store.claim(job.id, self._settings.worker_id, attempt=job.attempt)
                self._rendering = (claimed, running_workflow()) if claimed else None
            if claimed is None:
                return True
            if claimed.faults > job.faults:
                self._say(claimed, "The worker was lost")
            try:
                return self._render(claimed)
            except Exception as error:
                return self._end(claimed, _unexpected(job.id, error))
            finally:
                self._rendering = None
                self._forget_checkpoint_if_over(claimed)

    def _reason_not_to_run(self, job: Job) -> ErrorResponse | None:
        if job.attempt == 1 and job.start_deadline is not None and self._clock() > job.start_deadline:
            return START_TIMEOUT
        if job.faults >= self._attempts_of(job):
            return RUNNER_DISCONNECTED
        return None

    def _attempts_of(self, job: Job) -> int:
        return 1 if job.no_retry else self._settings.jobs.max_attempts

    def _render(self, job: Job) -> bool:
        """One attempt; False: the job waits for the next one."""
        refused = self._reason_not_to_run(job)
        if refused is not None:
            return self._end(job, refused)
        try:
            message, finished = self._generate(job)
        except (GenerationCancelled, GivenUp):
            self._store.finish_cancelled(job)
        except GeneratorDied as error:
            return self._count_fault(job, f"Generator lost: {error}", RUNNER_DISCONNECTED)
        except GeneratorStalled as error:
            return self._count_fault(job, f"Generator stalled: {error}", RUNNER_STALLED)
        except OutOfMemory as error:
            return self._make_room(job, error)
        except GenerationError as error:
            logger.warning("request %s: %s", job.id, error)
            return self._end(job, GENERATION_FAILED)
        else:
            self._hand_on(job, message.output, finished.seconds)
        return True

    def _generate(self, job: Job) -> tuple[Generate, Finished]:
        with JobLog(self._store, job) as log, self._local_image(job) as image:
            for line in [f"Attempt {job.attempt}"] if job.attempt > 1 else _skipped(job):
                log.add(line, "WARN")
            message = self._message(job, image)
            finished = self._generator.run(
                message, on_message=log.on_message, cancel_requested=lambda: self._store.is_unwanted(job)
            )
        return message, finished

    def _hand_on(self, job: Job, path: str, inference_time: float) -> None:
        key = self._storage.new_key("files", f"{job.id}.mp4")
        rendered = Rendered(key, path, self._settings.worker_id, inference_time)
        if not self._store.rendered(job, rendered, self._engine):
            Path(path).unlink(missing_ok=True)

    def _count_fault(self, job: Job, line: str, last: ErrorResponse) -> bool:
        """An infrastructure fault: again in a fresh generator, up to `max_attempts` times."""
        self._say(job, line)
        if job.faults + 1 >= self._attempts_of(job):
            return self._end(job, last)
        ride_out(self._store.release, job, fault=True)
        return False

    def _make_room(self, job: Job, error: OutOfMemory) -> bool:
        """Once per job: again in a fresh generator that keeps less on the GPU; no fault of anybody."""
        again = not job.no_retry and self._made_room_for != job.id
        plan = self._generator.shrink() if again else None
        if plan is None:
            self._say(job, str(error), "ERROR")
            return self._end(job, GPU_OUT_OF_MEMORY)
        self._made_room_for = job.id
        self._say(job, f"Out of GPU memory; trying again with the memory plan {plan}")
        ride_out(self._store.release, job)
        return False

    def _end(self, job: Job, error: ErrorResponse) -> bool:
        self._store.fail(job.id, error, attempt=job.attempt)
        return True

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
            checkpoint=str(self._storage.checkpoint(job.id)),
            width=width,
            height=height,
            num_frames=wanted.num_frames,
            fps=wanted.fps,
            num_inference_steps=wanted.num_inference_steps,
            guidance_scale=wanted.cfg_scale,
            seed=job.seed,
        )

    def _forget_checkpoint_if_over(self, job: Job) -> None:
        if self._store.is_over(job.id):
            self._storage.forget_checkpoint(job.id)

    # -- publish -----------------------------------------------------------------------------------------------

    def publish(self, request_id: str, video_key: str, rendered: str, inference_time: float) -> None:
        """Move the video into storage and record the result. No file without a result, no result without a file."""
        job = None
        path = Path(rendered)
        try:
            job = self._store.get(request_id)
            if job is not None and job.status is not Status.COMPLETED and job.video_key == video_key:
                self._publish(job, path, inference_time)
        except Exception as error:
            response = _unexpected(request_id, error)
            if job is not None:
                self._store.fail(job.id, response, attempt=job.attempt)
        self._tidy_up(request_id, video_key, path)

    def _publish(self, job: Job, path: Path, inference_time: float) -> None:
        key = job.video_key or ""
        try:
            size = self._with_storage(job, lambda: self._put_once(path, key))
        except GivenUp:
            self._store.finish_cancelled(job)
            return
        if size is None:
            self._say(job, "The video was lost with the machine that rendered it")
            self._store.render_again(job, self._engine)
        else:
            self._store.complete(job, video_bytes=size, inference_time=inference_time)

    def _put_once(self, path: Path, key: str) -> int | None:
        """Bytes of the stored video; None when it is neither here nor, put by an earlier try, in storage."""
        try:
            return self._storage.put(path, key)
        except FileNotFoundError:  # asking first would be of no use: a frozen publisher may do this at the same time
            return self._storage.size(key)

    def _tidy_up(self, request_id: str, video_key: str, path: Path) -> None:
        """Remove what no result names: keys are of one attempt, so it is nobody else's."""
        path.unlink(missing_ok=True)
        job = self._store.get(request_id)
        if job is None or job.video_key != video_key or job.video_bytes is None:
            self._storage.discard(video_key)
        if job is not None:
            self._forget_checkpoint_if_over(job)

    # -- shared ------------------------------------------------------------------------------------------------

    def _with_storage(self, job: Job, call: Callable[[], R]) -> R:
        """Call, and again for a while if the object store is away.

        Raises:
            GivenUp: nobody waits for the job any more.
        """
        jobs = self._settings.jobs
        return outlast(
            call,
            limit_s=jobs.storage_retry_s,
            first_delay_s=jobs.storage_retry_delay_s,
            say=lambda line: self._say(job, line),
            given_up=lambda: self._store.is_unwanted(job),
            look_every_s=jobs.cancel_poll_s,
        )

    def _say(self, job: Job, line: str, level: str = "WARN") -> None:
        ride_out(self._store.log, job, [(level, line)])


def _unexpected(request_id: str, error: Exception) -> ErrorResponse:
    logger.error("request %s failed", request_id, exc_info=error)
    return TryAgainLater().response() if isinstance(error, StorageAway) else INTERNAL_ERROR


def _skipped(job: Job) -> list[str]:
    """What the request asked for and this version does not do yet."""
    lines = []
    if job.input.enable_prompt_expansion:
        lines.append("Prompt expansion is not available in this version: skipped")
    if job.input.enable_safety_checker:
        lines.append("The safety checker is not available in this version: skipped")
    return lines
