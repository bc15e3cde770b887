"""What a job looks like from outside: the JSON of fal's queue API. Reads only; URLs are made here, when asked."""

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import PurePosixPath

from server.errors import ErrorResponse
from server.fal.queue_models import LogEntry, QueueStatus
from server.fal.schemas import ENDPOINT, File, HunyuanCustomOutput
from server.jobs.job import Job, LogLine, Status
from server.jobs.status_reads import JobState


def submitted(base_url: str, request_id: str, queue_position: int) -> QueueStatus:
    """Answer of a submit."""
    answer = _status(Status.IN_QUEUE, base_url, request_id)
    answer.logs = None
    answer.metrics = {}
    answer.queue_position = queue_position
    answer.gateway_request_id = request_id
    return answer


def status(job: JobState, *, queue_position: int | None, logs: Sequence[LogLine] | None) -> QueueStatus:
    """Answer of a status call.

    `logs` is a list when logs were asked for and null otherwise: fal's own examples iterate over it.
    """
    answer = _status(job.status, job.base_url, job.id)
    if job.status is Status.IN_QUEUE:
        answer.queue_position = queue_position
        return answer
    answer.logs = None if logs is None else [_log_entry(line) for line in logs]
    if job.status is Status.COMPLETED:
        answer.metrics = {} if job.inference_time is None else {"inference_time": round(job.inference_time, 3)}
        if job.error is not None:
            answer.error, answer.error_type = job.error, job.error_type
    return answer


def _status(status: Status, base_url: str, request_id: str) -> QueueStatus:
    """What every status has; the Python client follows the three URLs verbatim."""
    response = f"{base_url}/queue/{ENDPOINT}/requests/{request_id}"
    return QueueStatus(
        status=status.value,
        request_id=request_id,
        response_url=response,
        status_url=f"{response}/status",
        cancel_url=f"{response}/cancel",
    )


def _log_entry(line: LogLine) -> LogEntry:
    at = datetime.fromtimestamp(line.at, UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
    return LogEntry(message=line.message, level=line.level, source="USER", timestamp=at)


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
