"""fal's queue API: submit, status, result, cancel."""

from typing import Annotated

from fastapi import APIRouter, Query, Request
from fastapi.responses import JSONResponse, Response
from starlette.concurrency import run_in_threadpool

from server import views
from server.auth import current_owner
from server.doors import REQUEST_ID
from server.errors import AlreadyCompleted, NotFound, StillInProgress
from server.intake import Submission
from server.job import CancelOutcome, Job, Priority, Status
from server.request_body import read_body
from server.schemas import ENDPOINT
from server.services import base_url, services

router = APIRouter(prefix=f"/queue/{ENDPOINT}", tags=["queue"])

LogsFlag = Annotated[bool, Query(description="Whether to include logs (`1`) in the response or not (`0`).")]


@router.post("")
async def submit(request: Request) -> JSONResponse:
    """Put a request into the queue. Any JSON object is accepted; an invalid one finishes with its 422."""
    parts = services(request)
    submission = await read_submission(request)
    accepted = await run_in_threadpool(parts.intake.accept, submission)
    job = find_job(request, accepted.request_id)
    body = views.submitted(job.base_url, job.id, parts.store.queue_position(job))
    return JSONResponse(body, headers={REQUEST_ID: job.id})


@router.get("/requests/{request_id}/status")
async def status(request: Request, request_id: str, logs: LogsFlag = False) -> JSONResponse:
    """Where a request is: 202 while it waits or runs, 200 when it is over."""
    parts = services(request)
    job = find_job(request, request_id)
    position = parts.store.queue_position(job) if job.status is Status.IN_QUEUE else None
    lines = parts.store.logs(job.id) if logs and job.status is not Status.IN_QUEUE else None
    code = 200 if job.status is Status.COMPLETED else 202
    return JSONResponse(views.status(job, queue_position=position, logs=lines), code, {REQUEST_ID: job.id})


@router.get("/requests/{request_id}")
@router.get("/requests/{request_id}/response")
async def result(request: Request, request_id: str) -> Response:
    """The output, or the failure's own status and body."""
    job = find_job(request, request_id)
    if job.status is not Status.COMPLETED:
        raise StillInProgress
    return result_response(job)


@router.put("/requests/{request_id}/cancel")
async def cancel(request: Request, request_id: str) -> JSONResponse:
    """Stop a request: a waiting one is over at once, a running one as soon as the generator has stopped."""
    parts = services(request)
    job = find_job(request, request_id)
    outcome = await run_in_threadpool(parts.store.cancel, job.id)
    if outcome is CancelOutcome.ALREADY_COMPLETED:
        raise AlreadyCompleted
    return JSONResponse({"status": "CANCELLATION_REQUESTED"}, 202, {REQUEST_ID: job.id})


async def read_submission(request: Request) -> Submission:
    """Body and headers of a POST that wants a video."""
    body = await read_body(request, limit=services(request).settings.api.max_body_bytes)
    low = request.headers.get("x-fal-queue-priority", "normal").strip().lower() == "low"
    return Submission(body, current_owner(request), base_url(request), Priority.LOW if low else Priority.NORMAL)


def find_job(request: Request, request_id: str) -> Job:
    """The caller's job, or the one 404 for unknown, foreign and malformed ids."""
    job = services(request).store.get(request_id, owner=current_owner(request)) if len(request_id) == 36 else None
    if job is None:
        raise NotFound
    return job


def result_response(job: Job) -> Response:
    """A finished job as an HTTP response."""
    failure = views.failure(job)
    headers = {REQUEST_ID: job.id}
    if failure is not None:
        return JSONResponse(failure.body, failure.status, {**failure.headers, **headers})
    return JSONResponse(views.output(job).model_dump(exclude_none=True), headers=headers)
