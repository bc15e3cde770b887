"""The spans of a job's workflows, and those of the stages of an attempt, which the generator's messages tell."""

import time
from collections.abc import Callable
from types import TracebackType
from typing import Final, Self

from server.generator.messages import JobMessage, Log, Working
from server.jobs.job import Job
from server.tracing.spans import NO_SPAN, REQUEST_ID, Attributes, Span, continued, current_span, error_type_of

_NOTHING: Final[Attributes] = {}


def job_span(name: str, job: Job, attributes: Attributes = _NOTHING) -> Span:
    """Begin one below the submit's, if the job is traced."""
    span = continued(name, {REQUEST_ID: job.id, **attributes}, traceparent=job.traceparent)
    wanted = None if span is NO_SPAN else job.input_or_none
    if wanted is not None:
        span.note(
            {
                "hc.resolution": wanted.resolution,
                "hc.aspect_ratio": wanted.aspect_ratio,
                "hc.frames": wanted.num_frames,
                "hc.steps": wanted.num_inference_steps,
            }
        )
    return span


def note_wait(job: Job) -> None:
    """The span of the time from the submit to the first attempt."""
    span = continued("wait", {REQUEST_ID: job.id}, traceparent=job.traceparent, began=job.created_at)
    span.end(job.started_at)


class StageSpans:
    """Below the current span: expand, encode, denoise, decode, each until its last message. `clock`: Unix seconds."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._attempt = current_span()
        self._stage: str | None = None
        self._span = NO_SPAN
        self._heard = clock()

    def __enter__(self) -> Self:
        """Begin."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """The last stage ends with the attempt, and fails with it."""
        if error is not None:
            self._span.failed(error_type_of(error))
        self._span.end()

    def on_message(self, message: JobMessage) -> None:
        """Take what the generator reports."""
        if self._attempt is NO_SPAN:
            return
        if isinstance(message, Working):
            if message.stage != self._stage:
                self._span.end(self._heard)
                self._stage = message.stage
                self._span = self._attempt.child(message.stage, began=self._heard)
            self._heard = self._clock()
        elif isinstance(message, Log) and message.step_seconds is not None:
            self._span.event("step", {"hc.seconds": message.step_seconds})
