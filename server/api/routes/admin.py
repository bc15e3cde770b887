"""What the operator's page shows and does. About all owners together, and so for the operator alone."""

import logging
import shutil
import time
from dataclasses import asdict
from typing import Annotated, Final

from fastapi import APIRouter, Query, Request
from fastapi.responses import JSONResponse, Response
from pydantic import ValidationError
from starlette.concurrency import run_in_threadpool

from server.api.admin_models import Draining, Redelivery, RequestPage, ServerNow
from server.api.auth import admit_operator
from server.api.middleware.request_ids import REQUEST_ID
from server.api.model_response import ModelResponse
from server.api.request_body import read_body
from server.api.route_docs import CANCEL, DRAIN, OVERVIEW, REDELIVER, REQUEST, REQUESTS
from server.api.services import Services, services
from server.api.stored_jobs import cancelled, stored_job
from server.fal.schemas import invalid_body, parse_json_object
from server.jobs.request_details import details
from server.jobs.request_state import LONGEST_LIST, State
from server.version import VERSION

router = APIRouter(prefix="/admin", tags=["admin"])
logger = logging.getLogger(__name__)

Owner = Annotated[str | None, Query(pattern="^[^\\x00]*$", description="Only this owner's.")]  # Postgres takes no NUL
Limit = Annotated[int, Query(ge=1, le=LONGEST_LIST, description="How many requests at most.")]

_STARTED: Final = time.monotonic()
_BODY_BYTES: Final = 1000


@router.get("/overview", responses=OVERVIEW.responses)
async def overview(request: Request) -> JSONResponse:
    """The whole deployment as of one moment: queue, workers, running jobs, failures, webhooks, usage, disk."""
    admit_operator(request)
    return JSONResponse(await run_in_threadpool(_overview, services(request)))


@router.post("/drain", openapi_extra=DRAIN.extra, responses=DRAIN.responses)
async def drain(request: Request) -> Response:
    """Have all workers finish what they run and take no more jobs, or have them go on."""
    admit_operator(request)
    fields = parse_json_object(await read_body(request, limit=_BODY_BYTES))
    try:
        asked = Draining.model_validate(fields)
    except ValidationError as error:
        raise invalid_body(error) from None
    await run_in_threadpool(services(request).workers.drain, asked.draining)
    logger.info("the operator asked all workers to %s", "take no more jobs" if asked.draining else "go on")
    return ModelResponse(asked)


@router.post("/webhooks/{request_id}/redeliver", status_code=202, responses=REDELIVER.responses)
async def redeliver(request: Request, request_id: str) -> Response:
    """Deliver a request's result again, with the whole schedule."""
    admit_operator(request)
    job = await stored_job(request, request_id, owner=None)
    await run_in_threadpool(services(request).outbox.redeliver, job.id)
    logger.info("the operator asked for another delivery of request %s", job.id)
    return ModelResponse(Redelivery(request_id=job.id, state="pending"), 202, {REQUEST_ID: job.id})


@router.get("/requests", responses=REQUESTS.responses)
async def requests(
    request: Request, owner: Owner = None, status: State | None = None, limit: Limit = 20
) -> JSONResponse:
    """The newest requests of all owners, or of one, or in one state; without their input."""
    admit_operator(request)
    found = await run_in_threadpool(services(request).requests.newest, owner=owner, state=status, limit=limit)
    return JSONResponse(asdict(RequestPage(requests=found)))


@router.get("/requests/{request_id}", responses=REQUEST.responses)
async def one_request(request: Request, request_id: str) -> JSONResponse:
    """Any owner's request: its input, state, times, attempts, error and log."""
    admit_operator(request)
    job = await stored_job(request, request_id, owner=None)
    log = await run_in_threadpool(services(request).store.logs, job.id)
    return JSONResponse(asdict(details(job, log)), headers={REQUEST_ID: job.id})


@router.post("/requests/{request_id}/cancel", status_code=202, responses=CANCEL.responses)
async def cancel(request: Request, request_id: str) -> Response:
    """Stop any owner's request: a waiting one is over at once, a running one as soon as the generator has stopped."""
    admit_operator(request)
    job = await stored_job(request, request_id, owner=None)
    answer = await cancelled(request, job.id)
    logger.info("the operator cancelled request %s", job.id)
    return answer


def _overview(parts: Services) -> dict[str, object]:
    settings = parts.settings
    disk = shutil.disk_usage(settings.data_dir)
    server = ServerNow(
        version=VERSION,
        uptime_s=time.monotonic() - _STARTED,
        data_dir=str(settings.data_dir.resolve()),
        storage_url=settings.storage_url,
        disk_free_bytes=disk.free,
        disk_total_bytes=disk.total,
        min_free_bytes=settings.jobs.min_free_bytes,
    )
    return {"server": asdict(server), **asdict(parts.overview.read())}
