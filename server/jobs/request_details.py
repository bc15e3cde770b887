"""One request with all that is known of it: what an operator sees. Reads only."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from server.jobs import views
from server.jobs.job import Job, LogLine
from server.jobs.request_list import ListedRequest
from server.jobs.request_state import State


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestDetails(ListedRequest):
    """`input` is null if it was not valid, or is forgotten as its sender asked; `response` is that of a failure."""

    priority: str
    seed: str  # 64 bits, more than a number in JSON has everywhere
    input: dict[str, Any] | None
    cancel_requested: bool
    webhook_url: str | None
    video: dict[str, Any] | None
    response: dict[str, Any] | None
    log: Sequence[LogLine]


def details(job: Job, log: Sequence[LogLine]) -> RequestDetails:
    """Of a job with its log."""
    failure, listed = views.failure(job), ListedRequest.of(job)
    return RequestDetails(
        **asdict(listed),
        priority=job.priority.name.lower(),
        seed=str(job.seed),
        input=json.loads(job.input_json),
        cancel_requested=job.cancel_requested,
        webhook_url=job.webhook_url,
        video=views.output(job).video.model_dump() if listed.state is State.SUCCEEDED else None,
        response=None if failure is None else {"status": failure.status, "body": failure.body},
        log=log,
    )
