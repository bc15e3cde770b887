"""Which web pages may call this server from a browser.

By default pages of this machine ("local": localhost, 127.0.0.1 and [::1] at any port); a list of origins or "*" by
setting. The allowed headers are listed or echoed, since `*` does not cover Authorization, and what fal's JS client
reads from responses is exposed, since without that its `requestId` is empty. Videos may be shown by any page.
"""

import re
from collections.abc import Collection
from typing import Final

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_LOCAL: Final = re.compile(r"https?://(localhost|127\.0\.0\.1|\[::1\])(:\d{1,5})?")
_METHODS: Final = "GET, HEAD, POST, PUT, DELETE, OPTIONS"
_HEADERS: Final = "authorization, content-type, accept, x-fal-queue-priority, x-fal-request-timeout, x-fal-target-url"
_HEADER_LIST: Final = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~, -]{1,2000}")
_EXPOSED: Final = (
    "x-fal-request-id, x-fal-error-type, x-fal-request-timeout-type, x-fal-billable-units, x-fal-retryable, "
    "retry-after, etag, content-range, accept-ranges, content-length, content-disposition"
)
_ALLOW_ORIGIN: Final = "access-control-allow-origin"


class Cors:
    """ASGI middleware; answers preflights itself with 204."""

    def __init__(self, app: ASGIApp, origins: Collection[str]) -> None:
        self._app = app
        self._origins = frozenset(origins)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Add what the browser asks for, if the page may call."""
        origin = Headers(scope=scope).get("origin") if scope["type"] == "http" else None
        if origin is None:
            await self._app(scope, receive, send)
            return
        allowed = origin_is_allowed(origin, self._origins)
        if scope["method"] == "OPTIONS" and "access-control-request-method" in Headers(scope=scope):
            await _preflight(Headers(scope=scope), origin if allowed else None)(scope, receive, send)
            return

        async def send_with_cors(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers.add_vary_header("Origin")
                if allowed and _ALLOW_ORIGIN not in headers:
                    headers[_ALLOW_ORIGIN] = origin
                if _ALLOW_ORIGIN in headers:
                    headers["access-control-expose-headers"] = _EXPOSED
            await send(message)

        await self._app(scope, receive, send_with_cors)


def origin_is_allowed(origin: str, allowed: Collection[str]) -> bool:
    """Whether pages of that origin may call, by the setting `api.cors_origins`."""
    if "*" in allowed or origin in allowed:
        return True
    return "local" in allowed and _LOCAL.fullmatch(origin) is not None


def _preflight(asked: Headers, origin: str | None) -> Response:
    """204 either way; without an allowed origin it allows nothing."""
    headers = {"vary": "Origin, Access-Control-Request-Headers"}
    if origin is not None:
        wanted = asked.get("access-control-request-headers", "")
        headers |= {
            _ALLOW_ORIGIN: origin,
            "access-control-allow-methods": _METHODS,
            "access-control-allow-headers": wanted if _HEADER_LIST.fullmatch(wanted) else _HEADERS,
            "access-control-max-age": "600",
        }
        if asked.get("access-control-request-private-network") == "true":
            headers["access-control-allow-private-network"] = "true"
    return Response(status_code=204, headers=headers)
