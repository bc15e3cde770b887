"""The exact bytes of a status in each state: fal's clients see which fields are there and which are not."""

import json

import pytest

from server.api.model_response import ModelResponse
from server.fal.submit_headers import Priority
from server.jobs import views
from server.jobs.job import LogLine, Status
from server.jobs.status_reads import JobState

BASE = "http://host/queue/fal-ai/hunyuan-custom/requests/ID"
COMMON = f'"request_id":"ID","response_url":"{BASE}","status_url":"{BASE}/status","cancel_url":"{BASE}/cancel"'
LINE = LogLine(1, 'ä "\n\u2028', "INFO", 1_700_000_000.25)
LINE_JSON = (
    r'{"message":"ä \"\n' + "\u2028" + r'","level":"INFO","source":"USER","timestamp":"2023-11-14T22:13:20.250000Z"}'
)


def state(status: Status, *, seconds: float | None = None, error: str | None = None) -> JobState:
    error_type = None if error is None else "internal_error"
    return JobState("ID", 1, status, Priority.NORMAL, "http://host", seconds, error, error_type)


@pytest.mark.parametrize(
    ("job", "logs", "rest"),
    [
        (state(Status.IN_QUEUE), [], '"queue_position":3'),
        (state(Status.IN_PROGRESS), None, '"logs":null'),
        (state(Status.IN_PROGRESS), [LINE], f'"logs":[{LINE_JSON}]'),
        (state(Status.COMPLETED, seconds=12.34567), [], '"logs":[],"metrics":{"inference_time":12.346}'),
        (
            state(Status.COMPLETED, error="broken"),
            None,
            '"logs":null,"metrics":{},"error":"broken","error_type":"internal_error"',
        ),
    ],
)
def test_a_status_is_these_bytes(job: JobState, logs: list[LogLine] | None, rest: str) -> None:
    answer = ModelResponse(views.status(job, queue_position=3, logs=logs))
    assert bytes(answer.body).decode() == f'{{"status":"{job.status}",{COMMON},{rest}}}'
    as_plain_json = json.dumps(json.loads(bytes(answer.body)), ensure_ascii=False, separators=(",", ":"))
    assert bytes(answer.body).decode() == as_plain_json


def test_a_submit_is_answered_with_these_bytes() -> None:
    answer = ModelResponse(views.submitted("http://host", "ID", 2))
    rest = '"logs":null,"metrics":{},"queue_position":2,"gateway_request_id":"ID"'
    assert bytes(answer.body).decode() == f'{{"status":"IN_QUEUE",{COMMON},{rest}}}'
