"""Figures for Prometheus."""

from fastapi import APIRouter, Request
from fastapi.responses import Response
from starlette.concurrency import run_in_threadpool

from server.api.auth import admit_operator
from server.api.route_docs import METRICS
from server.api.services import services

router = APIRouter(tags=["metrics"])


@router.get("/metrics", response_class=Response, responses=METRICS.responses)
async def metrics(request: Request) -> Response:
    """Figures for Prometheus: queue, jobs, workers, stages, webhooks, disk, HTTP."""
    parts = services(request)
    admit_operator(request, token=parts.settings.api.metrics_token.get_secret_value())
    accept = request.headers.get("accept", "")
    body, content_type = await run_in_threadpool(parts.metrics.text, accept)
    return Response(body, media_type=None, headers={"Content-Type": content_type, "Cache-Control": "no-store"})
