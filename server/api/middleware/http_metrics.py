"""Counts the answers of this process and measures how long each takes to begin: two middleware around all others.

The route is only known inside, where the router writes it into a copy of the scope; `RouteSeen` keeps that copy.
"""

import time
from typing import Any, Final

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from server.api.http_traffic import HttpTraffic

_SCOPE_KEY: Final = "hunyuan_custom.routed_scope"
_METHODS: Final = {"GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH"}  # clients may send any other word


class HttpMetrics:
    """ASGI middleware around all that may answer."""

    def __init__(self, app: ASGIApp, traffic: HttpTraffic) -> None:
        self._app = app
        self._traffic = traffic

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the call on and count its answer when that begins."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = time.perf_counter()
        routed: list[Scope] = []
        scope[_SCOPE_KEY] = routed

        async def counting_send(message: Message) -> None:
            if message["type"] == "http.response.start":
                method = scope["method"]
                self._traffic.count(
                    method=method if method in _METHODS else "other",
                    route=_route(routed),
                    status=message["status"],
                    seconds=time.perf_counter() - started,
                )
            await send(message)

        await self._app(scope, receive, counting_send)


class RouteSeen:
    """ASGI middleware directly around the router."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the call on."""
        if _SCOPE_KEY in scope:
            scope[_SCOPE_KEY].append(scope)
        await self._app(scope, receive, send)


def _route(routed: list[Scope]) -> str:
    """The path of the route as it is declared: clients choose paths, and each label value costs memory."""
    route: Any = routed[0].get("route") if routed else None
    return "none" if route is None else str(route.path)
