"""Jobs as routes look them up and cancel them, by the id in a path."""

from fastapi import Request
from fastapi.responses import Response
from starlette.concurrency import run_in_threadpool

from server.api.auth import current_owner
from server.api.middleware.request_ids import REQUEST_ID
from server.api.model_response import ModelResponse
from server.api.services import services
from server.errors import AlreadyCompleted, NotFound
from server.fal.queue_models import CancelAnswer
from server.jobs.job import CancelOutcome, Job
from server.jobs.status_reads import JobState
from server.logs import name_request


async def find_state(request: Request, request_id: str) -> JobState:
    """The state of the caller's job, or the one 404 for unknown, foreign and malformed ids."""
    state = await services(request).reads.state(request_id, owner=current_owner(request))
    if state is None:
        raise NotFound
    name_request(state.id)
    return state


async def find_job(request: Request, request_id: str) -> Job:
    """The same as the whole record."""
    return await stored_job(request, request_id, owner=current_owner(request))


async def stored_job(request: Request, request_id: str, *, owner: str | None) -> Job:
    """The record of a job of that owner; None: of any, for a caller who may see all."""
    if len(request_id) != 36 or not request_id.isprintable():
        raise NotFound
    job = await run_in_threadpool(services(request).store.get, request_id, owner=owner)
    if job is None:
        raise NotFound
    name_request(job.id)
    return job


async def cancelled(request: Request, request_id: str) -> Response:
    """Ask a job to stop that its caller may stop."""
    outcome = await run_in_threadpool(services(request).store.cancel, request_id)
    if outcome is CancelOutcome.ALREADY_COMPLETED:
        raise AlreadyCompleted
    return ModelResponse(CancelAnswer(status="CANCELLATION_REQUESTED"), 202, {REQUEST_ID: request_id})
