"""One attempt to render a job: whether it may start, and the closed set of what can come of it."""

from dataclasses import dataclass
from typing import TypeAlias

from server.errors import ErrorResponse
from server.generator.faults import GeneratorDied
from server.jobs.job import Job
from server.jobs.outcomes import START_TIMEOUT
from server.settings import JobSettings


@dataclass(frozen=True, slots=True)
class NotNow:
    """Not claimed: this worker takes no jobs at the moment. The job waits for any worker."""


@dataclass(frozen=True, slots=True)
class NotOurs:
    """Not claimed: the job is over, or another attempt was faster."""


@dataclass(frozen=True, slots=True)
class Made:
    """The video is in a file of this machine."""

    path: str
    inference_time: float


@dataclass(frozen=True, slots=True)
class Ended:
    """The job ends with this error."""

    response: ErrorResponse


@dataclass(frozen=True, slots=True)
class Unwanted:
    """The user has cancelled, or the job has gone on without this attempt."""


@dataclass(frozen=True, slots=True)
class Again:
    """The job goes back to the queue. `fault`: the attempt counts against it."""

    fault: bool


Outcome: TypeAlias = NotNow | NotOurs | Made | Ended | Unwanted | Again


def reason_not_to_start(job: Job, limits: JobSettings) -> Ended | None:
    """Why a job that was just claimed ends without being rendered."""
    if job.start_deadline is not None and job.started_at is not None and job.started_at > job.start_deadline:
        return Ended(START_TIMEOUT)
    if job.faults >= _faults_allowed(job, limits):
        return Ended(GeneratorDied.told)
    return None


def after_fault(job: Job, limits: JobSettings, error: ErrorResponse) -> Again | Ended:
    """An infrastructure fault: again in a fresh generator, up to `max_attempts` times."""
    return Ended(error) if job.faults + 1 >= _faults_allowed(job, limits) else Again(fault=True)


def _faults_allowed(job: Job, limits: JobSettings) -> int:
    return 1 if job.no_retry else limits.max_attempts
