"""The API of a process that starts while its database is away: it answers 503 until the app can be opened."""

import asyncio
import logging
import os
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from fastapi import FastAPI
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import Receive, Scope, Send

from server.api.error_responses import to_response
from server.api.middleware.cors import Cors
from server.api.middleware.early_answers import EarlyAnswers
from server.api.middleware.request_ids import RequestIds
from server.api.middleware.security_headers import SecurityHeaders
from server.db.outage import OUTAGES, is_outage
from server.errors import TryAgainLater
from server.settings import Settings

logger = logging.getLogger(__name__)

_RETRY_S: Final = 1.0


class LateApi:
    """ASGI app. `open_app` is tried again until no outage stops it; another error ends the process."""

    def __init__(self, settings: Settings, open_app: Callable[[], FastAPI]) -> None:
        self._open_app = open_app
        self._until_then = _away(settings)
        self.app: FastAPI | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the call on to what there is."""
        if scope["type"] == "lifespan":
            await self._live(receive, send)
        else:
            await (self.app or self._until_then)(scope, receive, send)

    async def _live(self, receive: Receive, send: Send) -> None:
        await receive()
        running = asyncio.create_task(self._run())
        await send({"type": "lifespan.startup.complete"})
        await receive()
        running.cancel()
        with suppress(asyncio.CancelledError):
            await running
        await send({"type": "lifespan.shutdown.complete"})

    async def _run(self) -> None:
        app = await self._opened()
        async with app.router.lifespan_context(app):
            self.app = app
            await asyncio.Event().wait()

    async def _opened(self) -> FastAPI:
        while True:
            try:
                return await asyncio.to_thread(self._open_app)
            except Exception as error:
                if not is_outage(error):
                    logger.exception("this API cannot go on")
                    os._exit(1)
                OUTAGES.noticed(error)
            await asyncio.sleep(_RETRY_S)


def _away(settings: Settings) -> Starlette:
    """Is alive, and cannot do anything yet."""

    async def live(_request: Request) -> Response:
        return JSONResponse({"status": "ok"})

    async def away(_request: Request) -> Response:
        return to_response(TryAgainLater(retry_after_s=2 * _RETRY_S))

    app = Starlette(
        middleware=[
            Middleware(EarlyAnswers),
            Middleware(RequestIds),
            Middleware(SecurityHeaders),
            Middleware(Cors, origins=settings.api.cors_origins),
        ]
    )
    app.add_route("/health/live", live)
    app.add_route("/{path:path}", away, methods=["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"])
    return app
