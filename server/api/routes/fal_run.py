"""fal's sync run: the same job as in the queue, and a caller who waits for it."""

import asyncio

from fastapi import APIRouter, Request
from fastapi.responses import Response
from starlette.concurrency import run_in_threadpool

from server.api.error_responses import to_response
from server.api.event_stream import Tail
from server.api.middleware.request_ids import REQUEST_ID
from server.api.route_docs import RUN
from server.api.routes.fal_queue import read_submission, result_response
from server.api.services import services
from server.api.stored_jobs import find_job
from server.fal.schemas import ENDPOINT
from server.jobs.job import Status
from server.jobs.outcomes import CANCELLED, RESTARTING

router = APIRouter(prefix=f"/run/{ENDPOINT}", tags=["run"])


@router.post("", openapi_extra=RUN.extra, responses=RUN.responses)
async def run(request: Request) -> Response:
    """Make a video and answer with it.

    A caller who hangs up cancels the job, and so does a restart of this process, since retrying clients start another;
    with an Idempotency-Key the job goes on, since the same call will find it again.
    """
    parts = services(request)
    submission = await read_submission(request)
    accepted = await run_in_threadpool(parts.intake.accept, submission)
    request_id = accepted.request_id
    if accepted.refused is not None:
        return to_response(accepted.refused, {REQUEST_ID: request_id})

    over = asyncio.create_task(_is_over(parts.tail, request_id))
    gone = asyncio.create_task(_hangs_up(request))
    try:
        await asyncio.wait({over, gone}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        over.cancel()
        gone.cancel()
    restarting = over.done() and not over.cancelled()
    if restarting and over.result():
        return result_response(await find_job(request, request_id))
    if submission.options.idempotency_key is None:
        await run_in_threadpool(parts.store.cancel, request_id)
    return to_response(RESTARTING if restarting else CANCELLED, {REQUEST_ID: request_id})


async def _is_over(tail: Tail, request_id: str) -> bool:
    """Wait for the end of a job; False when this process stops before."""
    with tail.watch(request_id) as watch:
        while (update := await watch.next()) is not None:
            if update.state.status is Status.COMPLETED:
                return True
    return False


async def _hangs_up(request: Request) -> None:
    """Wait until the caller is gone; its body has been read, so nothing else can arrive."""
    while (await request.receive())["type"] != "http.disconnect":
        pass
