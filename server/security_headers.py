"""Headers that tell browsers to take answers for nothing but what they say they are."""

from typing import Final

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_ALWAYS: Final = {"x-content-type-options": "nosniff", "referrer-policy": "no-referrer"}
# Pages of our own bring a policy of their own; everything else has no reason to load or to be framed.
_NOT_A_PAGE: Final = {"content-security-policy": "default-src 'none'; frame-ancestors 'none'"}
_PRIVATE: Final = {"cache-control": "no-store"}


class SecurityHeaders:
    """ASGI middleware; a header that a route has set stays."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the call on."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                kind = headers.get("content-type", "")
                wanted = _ALWAYS if kind.startswith("text/html") else _ALWAYS | _NOT_A_PAGE
                if kind.startswith("application/json"):
                    wanted = wanted | _PRIVATE
                for name, value in wanted.items():
                    headers.setdefault(name, value)
            await send(message)

        await self._app(scope, receive, send_with_headers)
