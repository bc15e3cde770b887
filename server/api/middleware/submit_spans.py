"""The span of a submit, where traces are made: it begins a request's trace, or continues the one of its client."""

from typing import Final

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from server.api.middleware.request_ids import REQUEST_ID
from server.fal.schemas import ENDPOINT
from server.tracing.spans import ERROR_TYPE, exchange, within
from server.tracing.spans import REQUEST_ID as ID

_ROUTES: Final = {f"/queue/{ENDPOINT}", f"/run/{ENDPOINT}"}
_ERROR: Final = 500  # what a client does wrong is no error of this span, but has a type


class SubmitSpans:
    """ASGI middleware inside all that changes the path. Of other calls there is no span: clients poll."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the call on within its span."""
        if scope["type"] != "http" or scope["method"] != "POST" or scope["path"] not in _ROUTES:
            await self._app(scope, receive, send)
            return
        route = scope["path"]
        named = {"http.request.method": "POST", "http.route": route, "url.path": route, "url.scheme": scope["scheme"]}
        parent = Headers(scope=scope).get("traceparent")

        async def noting_send(message: Message) -> None:
            if message["type"] == "http.response.start":
                status, headers = message["status"], Headers(raw=message["headers"])
                span.note({"http.response.status_code": status})
                if request_id := headers.get(REQUEST_ID):
                    span.note({ID: request_id})
                error_type = headers.get("x-fal-error-type", str(status))
                if status >= _ERROR:
                    span.failed(error_type)
                elif status >= 400:
                    span.note({ERROR_TYPE: error_type})
            await send(message)

        with within(exchange(f"POST {route}", named, parent=parent)) as span:
            await self._app(scope, receive, noting_send)
