"""fal's queue API: submit, status, status stream, result, cancel."""

from dataclasses import replace
from typing import Annotated

from fastapi import APIRouter, Query, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse
from fastapi.routing import APIRoute
from starlette.concurrency import run_in_threadpool
from starlette.routing import Match, Route
from starlette.types import Scope

from server.api.auth import admit, current_owner, remains_owner
from server.api.error_responses import to_response
from server.api.event_stream import EventResponse, status_events
from server.api.intake import Submission
from server.api.middleware.request_ids import REQUEST_ID
from server.api.model_response import ModelResponse
from server.api.public_url import base_url
from server.api.request_body import read_body
from server.api.route_docs import CANCEL, RESULT, STATUS, STREAM, SUBMIT
from server.api.services import services
from server.api.stored_jobs import cancelled, find_job, find_state
from server.errors import StillInProgress
from server.fal.schemas import ENDPOINT
from server.fal.submit_headers import SubmitOptions
from server.jobs import views
from server.jobs.job import Job, Status
from server.untrusted.addresses import OutboundPolicy
from server.webhooks.target import check_webhook_url

router = APIRouter(prefix=f"/queue/{ENDPOINT}", tags=["queue"])

MaxQueueLength = Annotated[
    int | None, Query(ge=0, le=2**31 - 1, description="Refuse with 429 if more requests than this wait already.")
]

WebhookUrl = Annotated[str | None, Query(description="Where the result is posted to when the request is over.")]

_NO_BUFFER = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}


@router.post("", openapi_extra=SUBMIT.extra, responses=SUBMIT.responses)
async def submit(
    request: Request, fal_max_queue_length: MaxQueueLength = None, fal_webhook: WebhookUrl = None
) -> Response:
    """Put a request into the queue. Any JSON object is accepted; an invalid one finishes with its 422."""
    parts = services(request)
    submission = replace(await read_submission(request), max_queue_length=fal_max_queue_length)
    if fal_webhook is not None and fal_webhook.strip():
        policy = OutboundPolicy(parts.settings.allow_private_networks)
        submission = replace(submission, webhook_url=check_webhook_url(fal_webhook, policy))
    accepted = await run_in_threadpool(parts.intake.accept, submission)
    body = views.submitted(accepted.base_url, accepted.request_id, accepted.queue_position)
    return ModelResponse(body, headers={REQUEST_ID: accepted.request_id})


async def status(request: Request) -> Response:
    """Where a request is: 202 while it waits or runs, 200 when it is over."""
    reads = services(request).reads
    state = await find_state(request, request.path_params["request_id"])
    waiting = state.status is Status.IN_QUEUE
    position = await reads.position(state) if waiting else None
    lines = await reads.logs(state.id) if _wants_logs(request) and not waiting else None
    code = 200 if state.status is Status.COMPLETED else 202
    return ModelResponse(views.status(state, queue_position=position, logs=lines), code, {REQUEST_ID: state.id})


class _KnownRoute(Route):
    """Written into the scope, as FastAPI's are."""

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        match, found = super().matches(scope)
        return match, found if match is Match.NONE else {**found, "route": self}


# Clients poll this route ten times a second. FastAPI around it would take as long as the answer itself, so it is
# Starlette's, and FastAPI's twin is only for the schema.
_STATUS_PATH = f"/queue/{ENDPOINT}/requests/{{request_id}}/status"
STATUS_ROUTE = _KnownRoute(_STATUS_PATH, status, methods=["GET"])
STATUS_SCHEMA = APIRoute(
    _STATUS_PATH, status, methods=["GET"], tags=["queue"], openapi_extra=STATUS.extra, responses=STATUS.responses
)


@router.get(
    "/requests/{request_id}/status/stream",
    openapi_extra=STREAM.extra,
    response_class=StreamingResponse,  # FastAPI's schema asks its signature for a status
    responses=STREAM.responses,
)
async def status_stream(request: Request, request_id: str) -> EventResponse:
    """The same as events, one per change, until the request is over; `Accept` decides nothing."""
    owner = current_owner(request)
    state = await find_state(request, request_id)
    last = request.headers.get("last-event-id", "")
    after = int(last) if last.isascii() and last.isdigit() and len(last) < 16 else 0
    events = status_events(
        services(request).tail,
        state.id,
        logs=_wants_logs(request),
        after=after,
        is_allowed=lambda: remains_owner(request, owner),
    )
    return EventResponse(events, {REQUEST_ID: state.id, **_NO_BUFFER})


@router.get("/requests/{request_id}", responses=RESULT.responses)
@router.get("/requests/{request_id}/response", responses=RESULT.responses)
async def result(request: Request, request_id: str) -> Response:
    """The output, or the failure's own status and body."""
    job = await find_job(request, request_id)
    if job.status is not Status.COMPLETED:
        raise StillInProgress
    return result_response(job)


@router.put("/requests/{request_id}/cancel", status_code=202, responses=CANCEL.responses)
async def cancel(request: Request, request_id: str) -> Response:
    """Stop a request: a waiting one is over at once, a running one as soon as the generator has stopped."""
    state = await find_state(request, request_id)
    return await cancelled(request, state.id)


async def read_submission(request: Request) -> Submission:
    """Body and headers of a POST that wants a video."""
    owner = admit(request)  # before the body: a caller without a key sends none
    options = SubmitOptions.from_headers(request.headers)
    body = await read_body(request, limit=services(request).settings.api.max_body_bytes)
    return Submission(body, owner, base_url(request), options)


def result_response(job: Job) -> Response:
    """A finished job as an HTTP response."""
    failure = views.failure(job)
    headers = {REQUEST_ID: job.id}
    if failure is not None:
        return to_response(failure, headers)
    body = views.output(job).model_dump(exclude_none=True)
    return JSONResponse(body, headers={**headers, "x-fal-billable-units": "1"})


def _wants_logs(request: Request) -> bool:
    """JS says 1 or 0, Python true or false."""
    return request.query_params.get("logs", "").lower() in {"1", "true", "yes"}
