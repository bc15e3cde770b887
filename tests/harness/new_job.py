"""A job as the API hands it to the store."""

import uuid
from typing import Any

from server.fal.schemas import HunyuanCustomInput
from server.fal.submit_headers import Priority
from server.jobs.job import NewJob


def new_job(
    priority: Priority = Priority.NORMAL,
    owner: str = "local",
    *,
    asked: dict[str, Any] | None = None,
    **rest: Any,
) -> NewJob:
    """`asked`: fields of the input that are not the usual ones."""
    body = HunyuanCustomInput(**{"prompt": "p", "image_url": "data:"} | (asked or {}))
    return NewJob(str(uuid.uuid4()), owner, body, 1, priority, "http://127.0.0.1", **rest)
