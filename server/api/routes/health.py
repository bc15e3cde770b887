"""Is it alive, and can it make a video?"""

from dataclasses import asdict

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse
from starlette.concurrency import run_in_threadpool

from server.api.auth import owner_or_none
from server.api.route_docs import READY
from server.api.services import services
from server.generator.state import TAKES_JOBS

router = APIRouter(prefix="/health", tags=["health"])


@router.get("/live")
async def live() -> dict[str, str]:
    """This process answers; nothing else is looked at."""
    return {"status": "ok"}


@router.get("/ready", responses=READY.responses)
async def ready(request: Request) -> JSONResponse:
    """200 when a worker with a loaded model is there; else 503 with the reason. A full queue is still ready.

    Where keys exist, process ids and the reason in words are for those who have one.
    """
    parts = services(request)
    workers = await run_in_threadpool(parts.workers.fresh, parts.settings.jobs.heartbeat_stale_s)
    inside = {"pid", "generator_pid", "detail"} if owner_or_none(request) is None else set()
    shown = [{name: value for name, value in asdict(worker).items() if name not in inside} for worker in workers]
    ok = any(worker.state in TAKES_JOBS and not worker.draining for worker in workers)
    return JSONResponse({"status": "ready" if ok else "not ready", "workers": shown}, 200 if ok else 503)
