"""An owner's requests, the newest first: what the playground lists. Reads only."""

import json
from typing import Any, Final, Literal

import sqlalchemy as sa
from pydantic import BaseModel, Field

from server.db.tables import request_table
from server.fal.data_uri import is_data_uri
from server.fal.schemas import File
from server.jobs import views
from server.jobs.job import NO_INPUT, Job, Status
from server.jobs.job_store import job_columns, job_of
from server.jobs.outcomes import CANCELLED

_BEYOND: Final = 2**31 - 1  # the largest number of a request


class StoredError(BaseModel):
    """The answer of the result route for a request that ended without a video."""

    status: int
    body: dict[str, Any]


class HistoryEntry(BaseModel):
    """One request. Times are Unix seconds; the seed is text, because JavaScript's numbers end at 2**53."""

    request_id: str
    status: Literal["IN_QUEUE", "IN_PROGRESS", "COMPLETED"]
    created_at: float
    started_at: float | None
    finished_at: float | None
    input: dict[str, Any] | None = Field(
        description="Null if it was not valid or is forgotten; `image_url` is null for an image that came along."
    )
    seed: str
    video: File | None
    thumbnail_url: str | None
    expired: bool = Field(description="There was a video; its time is over.")
    cancelled: bool = Field(description="It ended so, or is being stopped.")
    error: StoredError | None
    inference_time: float | None


class HistoryPage(BaseModel):
    """`next` is the `before` of the next page."""

    requests: list[HistoryEntry]
    next: int | None


class History:
    """The `request` table by owner."""

    def __init__(self, database: sa.Engine) -> None:
        self._database = database

    def page(self, owner: str, *, limit: int, before: int | None = None) -> HistoryPage:
        """The newest, or those before a `next`.

        Written as a range of the index of owner and number: for `owner = ...` Postgres may prefer to walk through all
        requests from the newest, which takes long for an owner whose requests are old.
        """
        place = sa.tuple_(request_table.c.owner, request_table.c.seq)
        first, end = (sa.tuple_(owner, number) for number in (0, _BEYOND if before is None else before))
        newest_first = (request_table.c.owner.desc(), request_table.c.seq.desc())
        query = sa.select(*job_columns).where(place > first, place < end).order_by(*newest_first).limit(limit + 1)
        with self._database.connect() as connection:
            jobs = [job_of(found) for found in connection.execute(query)]
        shown = jobs[:limit]
        return HistoryPage(requests=[entry(job) for job in shown], next=shown[-1].seq if len(jobs) > limit else None)


def entry(job: Job) -> HistoryEntry:
    """What is shown of a request."""
    error = views.failure(job)
    done = job.status is Status.COMPLETED and error is None
    there = done and not job.media_deleted
    thumbnail = job.thumbnail_key if there else None
    return HistoryEntry(
        request_id=job.id,
        status=job.status.value,
        created_at=job.created_at,
        started_at=job.started_at,
        finished_at=job.finished_at,
        input=_shown_input(job.input_json),
        seed=str(job.seed),
        video=views.output(job).video if there else None,
        thumbnail_url=None if thumbnail is None else f"{job.base_url}/{thumbnail}",
        expired=done and job.media_deleted,
        cancelled=job.error_type == CANCELLED.error_type if error is not None else job.cancel_requested,
        error=None if error is None else StoredError(status=error.status, body=error.body),
        inference_time=job.inference_time,
    )


def _shown_input(input_json: str) -> dict[str, Any] | None:
    if input_json == NO_INPUT:
        return None
    shown: dict[str, Any] = json.loads(input_json)
    return shown | {"image_url": None} if is_data_uri(shown["image_url"]) else shown
