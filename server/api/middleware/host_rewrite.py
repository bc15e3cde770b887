"""Rewrites every call to its canonical path before routing (see `fal/hosts.py`).

`path` is the canonical one from here on; `raw_path` stays what the client wrote.
"""

from typing import Final
from urllib.parse import unquote

from fastapi import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from server.api.error_responses import to_response
from server.api.public_url import base_url
from server.errors import BadRequest, NotFound
from server.fal.hosts import FAL_PREFIXES, PROXY_PATH, canonical_path, proxy_target

_VIA_PROXY: Final = "hunyuan_custom.via_proxy"


class HostRewrite:
    """ASGI middleware that rewrites the path."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the call on with its canonical path."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        try:
            changes = _rewritten(Request(scope))
        except (BadRequest, NotFound) as error:
            await to_response(error)(scope, receive, send)
            return
        await self._app({**scope, **changes}, receive, send)


def came_via_proxy(scope: Scope) -> bool:
    """Whether the call came through `/api/fal/proxy`."""
    return _VIA_PROXY in scope


def _rewritten(request: Request) -> Scope:
    path = request.scope["path"]
    if path.rstrip("/") != PROXY_PATH:
        path = canonical_path(request.headers.get("host", ""), path)
        return {"path": path}
    target = proxy_target(request.headers, base_url(request))
    path = canonical_path(target.host, unquote(target.path))
    if not path.startswith(FAL_PREFIXES):
        raise BadRequest("Invalid request")
    return {"path": path, "query_string": target.query, _VIA_PROXY: True}
