"""fal's sync run: the same job as in the queue, and a caller who waits for it."""

import asyncio

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response
from starlette.concurrency import run_in_threadpool

from server.doors import REQUEST_ID
from server.errors import Cancelled
from server.job import Status
from server.routes_queue import find_job, read_submission, result_response
from server.schemas import ENDPOINT
from server.services import services

router = APIRouter(prefix=f"/run/{ENDPOINT}", tags=["run"])


@router.post("")
async def run(request: Request) -> Response:
    """Make a video and answer with it. A caller who hangs up cancels the job: retrying clients start another."""
    parts = services(request)
    accepted = await run_in_threadpool(parts.intake.accept, await read_submission(request))
    if accepted.refused is not None:
        refused = accepted.refused
        return JSONResponse(refused.body, refused.status, {**refused.headers, REQUEST_ID: accepted.request_id})
    while (job := find_job(request, accepted.request_id)).status is not Status.COMPLETED:
        if await request.is_disconnected():
            await run_in_threadpool(parts.store.cancel, job.id)
            gone = Cancelled().response()
            return JSONResponse(gone.body, gone.status, {**gone.headers, REQUEST_ID: job.id})
        await asyncio.sleep(parts.settings.api.sync_poll_s)
    return result_response(job)
