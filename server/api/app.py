"""The app of the API process: its routes, middleware and error handlers. It never imports torch."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI
from starlette.middleware import Middleware

from server.api.error_responses import HANDLERS
from server.api.middleware.body_limits import BodyLimits
from server.api.middleware.cors import Cors
from server.api.middleware.early_answers import EarlyAnswers
from server.api.middleware.head_requests import HeadRequests
from server.api.middleware.host_rewrite import HostRewrite
from server.api.middleware.http_metrics import HttpMetrics, RouteSeen
from server.api.middleware.loopback_guard import LoopbackGuard
from server.api.middleware.request_ids import RequestIds
from server.api.middleware.security_headers import SecurityHeaders
from server.api.middleware.submit_spans import SubmitSpans
from server.api.middleware.unhandled_errors import UnhandledErrors
from server.api.openapi_document import document
from server.api.routes import (
    admin,
    fal_queue,
    fal_run,
    files,
    health,
    jwks,
    metrics,
    openapi,
    pages,
    playground,
    uploads,
)
from server.api.services import Services
from server.jobs.start_deadlines import keep_deadlines
from server.settings import Settings
from server.tracing.spans import is_tracing
from server.version import VERSION


class Api(FastAPI):
    """FastAPI with a complete schema."""

    def openapi(self) -> dict[str, Any]:
        """The schema, made once."""
        if self.openapi_schema is None:
            self.openapi_schema = document(self)
        return self.openapi_schema


def create_app(settings: Settings) -> FastAPI:
    """Build the API on an existing database."""
    services = Services.open(settings)
    app = Api(
        title="hunyuan-custom-server",
        version=VERSION,
        description="Self-hosted fal-ai/hunyuan-custom. Every answer carries `x-fal-request-id`.",
        redirect_slashes=False,
        docs_url=None,  # its page loads scripts from elsewhere
        redoc_url=None,
        lifespan=_lifespan,
        telemetry={"tracing": False, "metrics": False, "logs": False, "auto_configure": False},  # ours has less in it
        routes=[fal_queue.STATUS_ROUTE],
        middleware=[  # the outermost first
            Middleware(EarlyAnswers),
            Middleware(HttpMetrics, traffic=services.metrics.http),
            Middleware(RequestIds),
            Middleware(SecurityHeaders),
            Middleware(Cors, origins=settings.api.cors_origins),
            Middleware(UnhandledErrors),
            Middleware(LoopbackGuard, settings=settings.api, keys=services.keys),
            Middleware(HostRewrite),
            Middleware(BodyLimits, settings=settings.api, keys=services.keys),
            Middleware(HeadRequests),
            *([Middleware(SubmitSpans)] if is_tracing() else []),
            Middleware(RouteSeen),
        ],
        exception_handlers=HANDLERS,
    )
    app.state.services = services
    for room in (fal_queue, fal_run, files, uploads, jwks, health, metrics, openapi, admin, pages, playground):
        app.include_router(room.router)
    return app


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    services: Services = app.state.services
    every_s = services.settings.api.deadline_poll_s
    deadlines = asyncio.create_task(keep_deadlines(services.store, services.reads, every_s=every_s))
    yield
    deadlines.cancel()
