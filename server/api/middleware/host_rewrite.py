"""Which of fal's hosts is meant, decided before routing.

fal spreads its API over hosts; here they are path prefixes on one port, and every other spelling is rewritten to
them (the bodies are byte-identical for run and queue, so only host or path can tell them apart):

    fal.run              /run/...     also the bare path /fal-ai/...
    queue.*              /queue/...   also a bare path with /requests/ in it
    rest[.alpha].fal.ai  /rest/...
    v3.fal.media         /cdn/...
    x-fal-target-url     any of them, through /api/fal/proxy

Trailing slashes are accepted and never redirected: fal's async client follows no redirects.
"""

import re
from functools import lru_cache
from typing import Final
from urllib.parse import unquote

from fastapi import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from server.api.error_responses import to_response
from server.api.public_url import base_url
from server.errors import BadRequest
from server.fal.hosts import FAL_HOSTS, PROXY_PATH, VIA_PROXY, proxy_target
from server.fal.schemas import ENDPOINT

_DOORS: Final = ("/run/", "/queue/", "/rest/", "/cdn/")
_OURS: Final = (*_DOORS, "/files/", "/api/", "/health/", "/.well-known/", "/openapi.json/")
_LONGEST_REMEMBERED: Final = 256  # strangers choose the paths: longer ones would cost memory
# fal's documentation also writes /{app}/{subpath}/requests/...
_SUBPATH: Final = re.compile(rf"^(/queue/{ENDPOINT})/(?!requests/)[^?]+?(/requests/.*)$")


def canonical_path(host: str, path: str) -> str:
    """The path with its door as prefix and without a trailing slash.

    >>> canonical_path("queue.fal.run", "/fal-ai/hunyuan-custom/")
    '/queue/fal-ai/hunyuan-custom'
    """
    return (_recent if len(host) + len(path) <= _LONGEST_REMEMBERED else _canonical)(host, path)


def _canonical(host: str, path: str) -> str:
    path = path.rstrip("/") or "/"
    name = host.rpartition(":")[0] if host.rpartition(":")[2].isdigit() else host
    name = name.lower()
    door = "/queue" if name.split(".")[0] == "queue" else FAL_HOSTS.get(name)
    # The file hosts have paths of their own that look like ours: v3.fal.media/files/upload.
    known = ("/rest/", "/cdn/") if door in {"/rest", "/cdn"} else _OURS
    if not f"{path}/".startswith(known):
        if door:
            path = f"{door}{path}"
        elif path.startswith("/fal-ai/"):
            path = f"/queue{path}" if "/requests/" in path else f"/run{path}"
    return _SUBPATH.sub(r"\1\2", path) if "/requests/" in path else path


_recent = lru_cache(maxsize=4096)(_canonical)  # those who poll ask for the same path ten times a second


class Doors:
    """ASGI middleware that rewrites the path."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the call on with its canonical path."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        try:
            changes = _route(Request(scope))
        except BadRequest as error:
            await to_response(error)(scope, receive, send)
            return
        await self._app({**scope, **changes}, receive, send)


def _route(request: Request) -> Scope:
    path = request.scope["path"]
    if path.rstrip("/") != PROXY_PATH:
        path = canonical_path(request.headers.get("host", ""), path)
        return {"path": path, "raw_path": path.encode()}
    target = proxy_target(request.headers, base_url(request))
    path = canonical_path(target.host, unquote(target.path))
    if not path.startswith(_DOORS):
        raise BadRequest("Invalid request")
    return {"path": path, "raw_path": path.encode(), "query_string": target.query, VIA_PROXY: True}
