"""Which web pages may call this server from a browser.

By default pages of this machine ("local": localhost, 127.0.0.1 and [::1] at any port); a list of origins or "*" by
setting. The allowed headers are echoed, since `*` does not cover Authorization, and what fal's JS client reads from
responses is exposed, since without that its `requestId` is empty. Videos may be shown by any page.
"""

import re
from collections.abc import Collection
from typing import Final

from starlette.datastructures import Headers
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

_LOCAL: Final = re.compile(r"https?://(localhost|127\.0\.0\.1|\[::1\])(:\d{1,5})?")
_METHODS: Final = ("GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS")
_EXPOSED: Final = (
    "x-fal-request-id",
    "x-fal-error-type",
    "x-fal-request-timeout-type",
    "x-fal-billable-units",
    "x-fal-retryable",
    "retry-after",
    "etag",
    "content-range",
    "accept-ranges",
    "content-length",
    "content-disposition",
)


class Cors(CORSMiddleware):
    """Starlette's, with our words for origins."""

    def __init__(self, app: ASGIApp, origins: Collection[str]) -> None:
        super().__init__(
            app, allow_methods=_METHODS, allow_headers=("*",), allow_private_network=True, expose_headers=_EXPOSED
        )
        self._origins = frozenset(origins)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass calls that come from no page on as they are: most do, ten times a second each."""
        if scope["type"] == "http" and "origin" not in Headers(scope=scope):
            await self.app(scope, receive, send)
        else:
            await super().__call__(scope, receive, send)

    def is_allowed_origin(self, origin: str) -> bool:
        """Whether pages of that origin may call."""
        return origin_is_allowed(origin, self._origins)

    def preflight_response(self, request_headers: Headers) -> Response:
        """204 without a body, as fal answers; a refused origin gets no `Access-Control-Allow-Origin`."""
        headers = super().preflight_response(request_headers).headers
        del headers["content-type"], headers["content-length"]
        return Response(status_code=204, headers=headers)


def origin_is_allowed(origin: str, allowed: Collection[str]) -> bool:
    """Whether pages of that origin may call, by the setting `api.cors_origins`."""
    if "*" in allowed or origin in allowed:
        return True
    return "local" in allowed and _LOCAL.fullmatch(origin) is not None
