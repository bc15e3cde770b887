"""The API process: routes, error translation, nothing of the model. It never imports torch."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI
from starlette.routing import Route

from server.api.error_responses import HANDLERS
from server.api.middleware.body_limits import RequestGuard
from server.api.middleware.cors import Cors
from server.api.middleware.early_answers import EarlyAnswers
from server.api.middleware.host_rewrite import Doors
from server.api.middleware.loopback_guard import SiteGuard
from server.api.middleware.request_ids import RequestIds
from server.api.middleware.security_headers import SecurityHeaders
from server.api.middleware.unhandled_errors import LastResort
from server.api.route_docs import document
from server.api.routes import fal_queue as routes_queue
from server.api.routes import fal_run as routes_run
from server.api.routes import files as routes_files
from server.api.routes import health as routes_health
from server.api.routes import jwks as routes_jwks
from server.api.routes import openapi
from server.api.routes import uploads as routes_uploads
from server.api.services import Services
from server.jobs.start_deadlines import keep_deadlines
from server.settings import Settings


def create_app(settings: Settings) -> FastAPI:
    """Build the API on an existing database."""
    app = FastAPI(
        title="hunyuan-custom-server",
        version="0.1.0",
        description="Self-hosted fal-ai/hunyuan-custom. Every answer carries `x-fal-request-id`.",
        redirect_slashes=False,
        docs_url=None,  # its page loads scripts from elsewhere
        redoc_url=None,
        lifespan=_lifespan,
        exception_handlers=HANDLERS,
    )
    app.state.services = Services.open(settings)
    for routes in (routes_queue, routes_run, routes_files, routes_uploads, routes_jwks, routes_health, openapi):
        app.include_router(routes.router)
    # Ahead of its FastAPI twin, which gives the schema and answers other methods: this is the route that is polled.
    app.router.routes.insert(0, Route(routes_queue.STATUS_PATH, routes_queue.status_answer, methods=["GET"]))
    app.openapi = lambda: document(app)  # type: ignore[method-assign]
    # The last one added is the outermost.
    app.add_middleware(RequestGuard, settings=settings.api, keys=app.state.services.keys)
    app.add_middleware(Doors)
    app.add_middleware(SiteGuard, settings=settings.api, keys=app.state.services.keys)
    app.add_middleware(LastResort)
    app.add_middleware(Cors, origins=settings.api.cors_origins)
    app.add_middleware(SecurityHeaders)
    app.add_middleware(RequestIds)
    app.add_middleware(EarlyAnswers)
    return app


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    parts: Services = app.state.services
    deadlines = asyncio.create_task(keep_deadlines(parts.store, every_s=parts.settings.api.deadline_poll_s))
    yield
    deadlines.cancel()
