"""An exception without a handler becomes a JSON 500 with the request id; its traceback goes to the log only.

While the database or the object store is away it becomes a 503 with Retry-After instead.

Starlette's own handler for these stands outside of all middleware: its answer would lack the CORS headers and the
request id.
"""

import logging

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from server.api.error_responses import to_response
from server.api.middleware.request_ids import request_id_of
from server.db.outage import OUTAGES, is_outage, one_line
from server.errors import INTERNAL_ERROR, StorageAway, TryAgainLater

logger = logging.getLogger(__name__)

_RETRY_AFTER_S = 2.0


class UnhandledErrors:
    """ASGI middleware around everything that may fail."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the call on and answer if it raises."""
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
        except Exception as reason:
            away = isinstance(reason, StorageAway) or is_outage(reason)
            call = f"{scope['method']} {scope['path']} failed, request id {request_id_of(scope)}"
            if is_outage(reason):
                OUTAGES.noticed(reason)
            elif away:
                logger.warning("%s: %s", call, one_line(reason))
            else:
                logger.exception(call)
            if started:  # too late for a status; the broken connection tells the client
                raise
            error = TryAgainLater(retry_after_s=_RETRY_AFTER_S) if away else INTERNAL_ERROR
            await to_response(error)(scope, receive, send)
