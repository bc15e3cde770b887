"""What a worker measures while it works, and shows in traces: how attempts end, how long steps and stages take."""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Final

from server.db.outage import GivenUp
from server.generator.faults import (
    ContentFlagged,
    DiskError,
    GenerationCancelled,
    GeneratorDied,
    GeneratorStalled,
    OutOfMemory,
)
from server.generator.messages import JobMessage, Log, Working
from server.generator.state import GpuMemory
from server.jobs.measurements import Measured, MeasurementTable, together
from server.tracing.spans import NO_SPAN, current_span, error_type_of

RENDERED, WORKER_LOST, FAILED, CANCELLED = "rendered", "worker_lost", "failed", "cancelled"
_REASONS: Final[dict[type[Exception], str]] = {
    GenerationCancelled: CANCELLED,
    GivenUp: CANCELLED,
    GeneratorDied: "generator_lost",
    GeneratorStalled: "generator_stalled",
    OutOfMemory: "out_of_memory",
    DiskError: "disk_full",
    ContentFlagged: "refused",
}


class Measuring:
    """Counts; several threads may. `clock` gives seconds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._measured = Measured()
        self._changing = threading.Lock()

    def go_on_from(self, before: Measured) -> None:
        """Add to what this worker measured before it was started again."""
        with self._changing:
            self._measured = together([before, self._measured])

    def as_json(self, gpus: Sequence[GpuMemory]) -> str:
        """All of it."""
        with self._changing:
            self._measured.gpus = [gpu.model_dump() for gpu in gpus]
            return self._measured.model_dump_json()

    def attempt_ended(self, reason: str) -> None:
        """Count an attempt."""
        with self._changing:
            self._measured.count_attempt(reason)

    def stage_took(self, name: str, seconds: float) -> None:
        """Count a stage of a job."""
        with self._changing:
            self._measured.stage(name).add(max(0.0, seconds))

    def step_took(self, seconds: float) -> None:
        """Count a denoising step."""
        with self._changing:
            self._measured.steps.add(seconds)

    @contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        """Measure a stage; one that fails is not counted."""
        started = self._clock()
        yield
        self.stage_took(stage, self._clock() - started)

    @contextmanager
    def attempt(self) -> Iterator["AttemptStages"]:
        """Measure what the generator does for one attempt, and count how it ends."""
        stages = AttemptStages(self, self._clock)
        try:
            yield stages
        except Exception as error:
            reason = _REASONS.get(type(error), FAILED)
            self.attempt_ended(reason)
            stages.failed(error_type_of(error))
            if reason != CANCELLED:
                current_span().failed(reason)
            raise
        stages.end()
        self.attempt_ended(RENDERED)


class AttemptStages:
    """The stages of one attempt, told from the generator's messages: each lasts until its last one.

    Those that end well are measured; each is a span below the attempt's.
    """

    def __init__(self, measuring: Measuring, clock: Callable[[], float]) -> None:
        self._measuring = measuring
        self._clock = clock
        self._began = self._heard = clock()
        self._to_unix_s = time.time() - self._began
        self._attempt = current_span()
        self._stage: str | None = None
        self._span = NO_SPAN

    def on_message(self, message: JobMessage) -> None:
        """Take what the generator reports."""
        if isinstance(message, Working):
            if message.stage != self._stage:
                self._close(self._heard)
                self._stage = message.stage
                self._span = self._attempt.child(message.stage, began=self._heard + self._to_unix_s)
            self._heard = self._clock()
        elif isinstance(message, Log) and message.step_seconds is not None:
            self._measuring.step_took(message.step_seconds)
            self._span.event("step", {"hc.seconds": message.step_seconds})

    def end(self) -> None:
        """The video is there: writing it belongs to the last stage."""
        self._close(self._clock())

    def failed(self, error_type: str) -> None:
        """The last stage fails with the attempt, and does not count."""
        self._span.failed(error_type)
        self._span.end()

    def _close(self, until: float) -> None:
        if self._stage is not None:
            self._measuring.stage_took(self._stage, until - self._began)
            self._began = until
        self._span.end(until + self._to_unix_s)


class MeasurementReport:
    """Writes a worker's row when there is news."""

    def __init__(self, table: MeasurementTable, measuring: Measuring, *, worker_id: str) -> None:
        self._table = table
        self._measuring = measuring
        self._worker_id = worker_id
        self._written: str | None = None

    def write(self, gpus: Sequence[GpuMemory]) -> None:
        """Go on from the row that is there, at the first call; after that write what has changed."""
        if self._written is None:
            self._measuring.go_on_from(self._table.all().get(self._worker_id, Measured()))
            self._written = ""
        now = self._measuring.as_json(gpus)
        if now != self._written:
            self._table.write(self._worker_id, now)
            self._written = now
