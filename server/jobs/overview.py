"""What an operator sees at a glance: the values, as `jobs/overview_reader.py` reads them.

No prompt, no image and no address of a user is among them, beside the host that a webhook goes to. Times are spans in
seconds before `at`, so that a reader's own clock does not matter.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from server.jobs.usage_sums import Used


@dataclass(frozen=True, slots=True, kw_only=True)
class WaitingJob:
    """One that waits; those with attempts were given back by a worker."""

    request_id: str
    owner: str
    priority: Literal["normal", "low"]
    waited_s: float
    attempts: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Queue:
    """`next` are the first ones, in the order in which they will be rendered."""

    waiting: Mapping[str, int]  # by priority
    oldest_wait_s: float
    running: int
    next: Sequence[WaitingJob]


@dataclass(frozen=True, slots=True, kw_only=True)
class RunningJob:
    """One that a worker has. `stage` and what follows is its last report, null while there is none."""

    request_id: str
    owner: str
    worker_id: str | None
    attempt: int
    faults: int
    running_s: float
    lost: bool  # its worker is not heard of any more: another one goes on with it
    cancelled: bool  # asked for, and not yet seen by its generator
    rendered: bool  # its video is being stored
    stage: str | None
    done: int | None
    total: int | None
    seconds_left: float | None
    reported_s: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerNow:
    """`gpus`: index, and bytes used by anything, held at most by the generator, and in all; one for each rank.

    They are known once a model was loaded. `stale`: silent for so long that its jobs go to others.
    """

    id: str
    state: str
    detail: str
    draining: bool
    stale: bool
    heartbeat_age_s: float
    pid: int
    generator_pid: int | None
    gpus: Sequence[Mapping[str, int]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """A request that ended without a video, and not because its sender cancelled it."""

    request_id: str
    owner: str
    ended_s: float
    status: int
    error_type: str
    message: str
    attempts: int
    faults: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """A webhook: how its last attempt ended. `due_s` is the time until the next one, of a pending one."""

    request_id: str
    owner: str | None  # null: the request is deleted
    host: str
    state: Literal["pending", "delivered", "failed"]
    attempts: int
    outcome: str
    due_s: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Webhooks:
    """`latest`: the last ones of each state, those that failed first."""

    pending: int
    failed: int
    latest: Sequence[Delivery]


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnerUsage:
    """Days are those of UTC; `week` is today and the six days before."""

    owner: str
    today: Used
    week: Used
    all: Used


@dataclass(frozen=True, slots=True, kw_only=True)
class Overview:
    """As of `at`, Unix seconds. `usage` is of the owners with most GPU time this week; `owners` counts all."""

    at: float
    queue: Queue
    running: Sequence[RunningJob]
    workers: Sequence[WorkerNow]
    failures: Sequence[Failure]
    attempts: Mapping[str, int]  # by how they ended, since the first
    webhooks: Webhooks
    usage: Sequence[OwnerUsage]
    owners: int
    keys: int
    database: str
    database_bytes: int
