"""An exception that no handler knows becomes a JSON 500 with the request id; its traceback goes to the log only.

Starlette has a handler of its own for that, but outside of all middleware: its answer would lack the CORS headers and
the request id.
"""

import logging

from fastapi.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from server.errors import InternalError
from server.request_ids import request_id_of

logger = logging.getLogger(__name__)


class LastResort:
    """ASGI middleware around everything that may fail."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the call on and answer for it if it breaks."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = False

        async def watching_send(message: Message) -> None:
            nonlocal started
            started = started or message["type"] == "http.response.start"
            await send(message)

        try:
            await self._app(scope, receive, watching_send)
        except Exception:
            logger.exception("%s %s failed, request id %s", scope["method"], scope["path"], request_id_of(scope))
            if started:  # too late for a status; the broken connection tells the client
                raise
            error = InternalError().response()
            await JSONResponse(error.body, error.status, error.headers)(scope, receive, send)
