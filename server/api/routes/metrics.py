"""Figures for Prometheus."""

from fastapi import APIRouter, Request
from fastapi.responses import Response
from starlette.concurrency import run_in_threadpool

from server.api.auth import admit_metrics
from server.api.route_docs import METRICS
from server.api.services import services

router = APIRouter(tags=["metrics"])


@router.get("/metrics", response_class=Response, responses=METRICS.responses)
async def metrics(request: Request) -> Response:
    """Figures for Prometheus: queue, jobs, workers, stages, webhooks, disk, HTTP."""
    admit_metrics(request)
    accept = request.headers.get("accept", "")
    body, content_type = await run_in_threadpool(services(request).metrics.text, accept)
    return Response(body, media_type=None, headers={"Content-Type": content_type, "Cache-Control": "no-store"})
