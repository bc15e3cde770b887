"""What a job looks like from outside: the JSON of fal's queue API. Reads only; URLs are made here, when asked."""

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import PurePosixPath
from typing import Any

from server.errors import ErrorResponse
from server.fal.schemas import ENDPOINT, File, HunyuanCustomOutput
from server.jobs.job import Job, LogLine, Status
from server.jobs.status_reads import JobState


def request_urls(base_url: str, request_id: str) -> dict[str, str]:
    """The three URLs that the Python client follows verbatim."""
    response = f"{base_url}/queue/{ENDPOINT}/requests/{request_id}"
    return {
        "response_url": response,
        "status_url": f"{response}/status",
        "cancel_url": f"{response}/cancel",
    }


def submitted(base_url: str, request_id: str, queue_position: int) -> dict[str, Any]:
    """Answer of a submit."""
    return {
        "status": Status.IN_QUEUE,
        "request_id": request_id,
        **request_urls(base_url, request_id),
        "logs": None,
        "metrics": {},
        "queue_position": queue_position,
        "gateway_request_id": request_id,
    }


def status(job: JobState, *, queue_position: int | None, logs: Sequence[LogLine] | None) -> dict[str, Any]:
    """Answer of a status call.

    `logs` is a list when logs were asked for and null otherwise: fal's own examples iterate over it.
    """
    body: dict[str, Any] = {
        "status": job.status,
        "request_id": job.id,
        **request_urls(job.base_url, job.id),
    }
    if job.status is Status.IN_QUEUE:
        return {**body, "queue_position": queue_position}
    body["logs"] = None if logs is None else [log_line(line) for line in logs]
    if job.status is Status.COMPLETED:
        body["metrics"] = {} if job.inference_time is None else {"inference_time": round(job.inference_time, 3)}
        if job.error is not None:
            body.update(error=job.error, error_type=job.error_type)
    return body


def log_line(line: LogLine) -> dict[str, str]:
    """One line in fal's form."""
    at = datetime.fromtimestamp(line.at, UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
    return {"message": line.message, "level": line.level, "source": "USER", "timestamp": at}


def output(job: Job) -> HunyuanCustomOutput:
    """Output of a successful job."""
    if job.video_key is None:
        raise ValueError(f"request {job.id} has no video")
    video = File(
        url=f"{job.base_url}/{job.video_key}",
        content_type="video/mp4",
        file_name=PurePosixPath(job.video_key).name,
        file_size=job.video_bytes,
    )
    return HunyuanCustomOutput(video=video, seed=job.seed)


def failure(job: Job) -> ErrorResponse | None:
    """The stored error of a finished job, None for a success."""
    if job.response_json is None or job.response_status is None:
        return None
    headers = json.loads(job.response_headers or "{}")
    return ErrorResponse(job.response_status, json.loads(job.response_json), job.error_type or "", headers)
