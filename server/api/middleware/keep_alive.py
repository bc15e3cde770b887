"""Tells clients how long their connection lives between two requests, unless this answer is its last.

Clients that read it hang up first (Node's fetch, agents with a timeout): no request meets the server's end.
"""

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send


class KeepAlive:
    """ASGI middleware around everything: any answer may close the connection."""

    def __init__(self, app: ASGIApp, *, seconds: float) -> None:
        self._app = app
        self._header = (b"keep-alive", b"timeout=%d" % max(1, int(seconds) - 1))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the call on."""
        if scope["type"] != "http" or scope["http_version"] == "1.0" or _closes(Headers(scope=scope)):
            await self._app(scope, receive, send)
            return

        async def send_with_limit(message: Message) -> None:
            if message["type"] == "http.response.start" and not _closes(Headers(raw=message["headers"])):
                message["headers"] = [*message["headers"], self._header]
            await send(message)

        await self._app(scope, receive, send_with_limit)


def _closes(headers: Headers) -> bool:
    return "close" in headers.get("connection", "").lower()
