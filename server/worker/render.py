"""The second workflow of a job, and the only one that holds the GPU slot: its video is rendered."""

import logging
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Final, assert_never

from dbos import DBOSClient

from server.db.outage import GivenUp, ride_out
from server.generator.faults import (
    ContentFlagged,
    DiskError,
    GenerationCancelled,
    GenerationError,
    GeneratorDied,
    GeneratorStalled,
    OutOfMemory,
)
from server.generator.job_message import LocalFiles, generate_message
from server.generator.messages import Generate, JobMessage
from server.generator.parent import Generator
from server.jobs.job import Job, Rendered
from server.jobs.job_store import JobStore
from server.jobs.progress import ProgressTable
from server.settings import Settings
from server.storage.files import Storage
from server.storage.scratch import scratch_thumbnail
from server.tracing.spans import Attributes, within
from server.worker.attempt import (
    Again,
    Ended,
    Made,
    NotNow,
    NotOurs,
    Outcome,
    Unwanted,
    after_fault,
    reason_not_to_start,
)
from server.worker.claims import Claims
from server.worker.job_log import JobLog
from server.worker.job_progress import JobProgress
from server.worker.job_spans import job_span, note_wait
from server.worker.measuring import WORKER_LOST, Measuring
from server.worker.workflow import Workflow, unexpected_error

logger = logging.getLogger(__name__)

_LONGEST_PAUSE_S: Final = 30.0  # of a worker whose disk is full


class RenderWorkflow(Workflow):
    """One runs at a time."""

    def __init__(
        self,
        store: JobStore,
        storage: Storage,
        generator: Generator,
        dbos: DBOSClient,
        *,
        progress: ProgressTable,
        settings: Settings,
        measuring: Measuring | None = None,
    ) -> None:
        super().__init__(store, storage, settings, measuring=measuring)
        self._generator = generator
        self._progress = progress
        self.claims = Claims(store, dbos, settings.worker_id)
        self._made_room_for: str | None = None
        self._job_log: JobLog | None = None
        self._pause_s = 0.0

    def run(self, request_id: str) -> None:
        """Hold the GPU slot: have the generator make the video, then hand it on.

        A job that has to wait goes back to the queue at once, for any worker, while this call stays: it keeps the slot
        taken until this worker can take a job again, which after an error of its disk takes a while.
        """
        job = None
        try:
            job = self._store.get(request_id)
            outcome = self._attempt(job) if job is not None else NotOurs()
            if isinstance(outcome, Again | NotNow):
                self.claims.requeue()
                self.claims.wait_until_allowed()
                if isinstance(outcome, Again):  # otherwise the pause would be that of an earlier job
                    time.sleep(self._pause_s)
                self._generator.wait_until_ready()
        except Exception as error:
            response = unexpected_error(request_id, error)
            if job is not None:
                self._store.fail(job.id, response, attempt=job.attempt)

    def write_log(self) -> None:
        """Write what the running job's log has collected: this worker stops before the job's end."""
        if self._job_log is not None:
            self._job_log.write()

    def _attempt(self, job: Job) -> Outcome:
        """Claim a job, render it and record what came of it."""
        with self._generator.reserved() as ready:
            claimed = self.claims.claim(job) if ready else NotNow()
            if not isinstance(claimed, Job):
                return claimed
            try:
                if claimed.attempt == 1:
                    self._measuring.stage_took("wait", (claimed.started_at or 0.0) - claimed.created_at)
                    note_wait(claimed)
                if claimed.faults > job.faults:
                    self._measuring.attempt_ended(WORKER_LOST)
                    self._log(claimed, "The worker was lost")
                not_started = reason_not_to_start(claimed, self._settings.jobs)
                outcome = self._traced(claimed) if not_started is None else not_started
                self._record(claimed, outcome)
            except Exception as error:
                outcome = Ended(unexpected_error(job.id, error))
                self._record(claimed, outcome)
            finally:
                self.claims.attempt_ended()
                self._forget_checkpoint_if_over(claimed.id)
            return outcome

    def _record(self, job: Job, outcome: Outcome) -> None:
        """All that an outcome does to the job."""
        match outcome:
            case Made():
                self._hand_on(job, outcome)
            case Ended():
                if not self._store.finish_cancelled(job):
                    self._store.fail(job.id, outcome.response, attempt=job.attempt)
            case Unwanted():
                self._store.finish_cancelled(job)
            case Again():
                ride_out(self._store.release, job, fault=outcome.fault)
            case NotNow() | NotOurs():
                pass  # nothing was claimed
            case _:
                assert_never(outcome)

    def _traced(self, job: Job) -> Outcome:
        """A span for each attempt; the one of an attempt whose worker is lost is lost with it."""
        about: Attributes = {
            "hc.attempt": job.attempt,
            "hc.worker_id": self._settings.worker_id,
            "hc.model": Path(self._settings.generator.model).name,
        }
        with within(job_span("render", job, about)) as span:
            outcome = self._render(job)
            if isinstance(outcome, Ended):
                span.failed(outcome.response.error_type)
        return outcome

    def _render(self, job: Job) -> Outcome:
        pause_s, self._pause_s = self._pause_s, 0.0
        try:
            return self._generate(job)
        except (GenerationCancelled, GivenUp):
            return Unwanted()
        except (GeneratorDied, GeneratorStalled) as error:
            self._log(job, error.log_line)
            return after_fault(job, self._settings.jobs, error.response())
        except OutOfMemory as error:
            return self._make_room(job, error)
        except DiskError as error:
            self._log(job, "The disk is full or cannot be written; trying again")
            logger.warning("request %s: %s", job.id, error)
            self._pause_s = min(max(self._settings.jobs.storage_retry_delay_s, 2 * pause_s), _LONGEST_PAUSE_S)
            return after_fault(job, self._settings.jobs, error.response())
        except (ContentFlagged, GenerationError) as error:
            if isinstance(error, ContentFlagged):
                self._log(job, error.log_line, "ERROR")
            else:
                logger.warning("request %s: %s", job.id, error)
            return Ended(error.response())

    def _generate(self, job: Job) -> Made:
        with JobLog(self._store, job) as log, self._local_image(job) as image, self._rendering(job) as output:
            self._job_log = log
            for notice in [f"Attempt {job.attempt}"] if job.attempt > 1 else self._skipped(job):
                log.add(notice, "WARN")
            message = self._message(job, image, output)

            def on_message(heard: JobMessage) -> None:
                stages.on_message(heard)
                log.on_message(heard)
                progress.on_message(heard)

            with self._measuring.attempt() as stages, JobProgress(self._progress, job) as progress:
                finished = self._generator.run(
                    message, on_message=on_message, cancel_requested=lambda: self._store.is_unwanted(job)
                )
        return Made(message.output, finished.seconds)

    def _make_room(self, job: Job, error: OutOfMemory) -> Again | Ended:
        """Once per job: again in a fresh generator that keeps less on the GPU; no fault is counted."""
        may_retry = not job.no_retry and self._made_room_for != job.id
        plan = self._generator.shrink() if may_retry else None
        if plan is None:
            self._log(job, str(error), "ERROR")
            return Ended(error.response())
        self._made_room_for = job.id
        self._log(job, f"Out of GPU memory; trying again with the memory plan {plan}")
        return Again(fault=False)

    def _hand_on(self, job: Job, made: Made) -> None:
        key = self._storage.new_key("files", f"{job.id}.mp4")
        rendered = Rendered(key, made.path, self._settings.worker_id, made.inference_time)
        if not self._store.rendered(job, rendered):
            self._storage.scratch.forget_rendering(Path(made.path))

    @contextmanager
    def _local_image(self, job: Job) -> Iterator[Path]:
        """The identity image as a file of this machine."""
        with ExitStack() as stack:
            image = self._with_storage(job, lambda: stack.enter_context(self._storage.local(job.image_key or "")))
            if image is None:
                raise FileNotFoundError(f"the identity image of request {job.id} is gone")
            yield image

    @contextmanager
    def _rendering(self, job: Job) -> Iterator[Path]:
        """Where the attempt's video is made; nothing stays there of an attempt that fails."""
        scratch = self._storage.scratch
        output = scratch.rendering(f"{job.id}-{job.attempt}.mp4")
        try:
            yield output
        except Exception:
            with suppress(OSError):  # a disk that cannot be written keeps it; what the job ended with counts
                scratch.forget_rendering(output)
            raise

    def _skipped(self, job: Job) -> list[str]:
        """What the request asked for and is not done."""
        lines = []
        if job.input.enable_prompt_expansion and not self._settings.prompt.expansion:
            lines.append("Prompt expansion is switched off on this server")
        return lines

    def _message(self, job: Job, image: Path, output: Path) -> Generate:
        scratch = self._storage.scratch
        files = LocalFiles(
            image=image,
            output=output,
            checkpoint=scratch.checkpoint(job.id),
            cut_out=scratch.cut_out(job.id),
            thumbnail=scratch_thumbnail(output),
        )
        return generate_message(
            job.id, job.input, seed=job.seed, files=files, settings=self._settings, log_prompt=job.store_io
        )
