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
from urllib.parse import unquote, urlsplit

from fastapi.responses import JSONResponse
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from server.errors import BadRequest
from server.fal_proxy import FAL_HOSTS, PROXY_PATH, proxy_target
from server.schemas import ENDPOINT

VIA_PROXY: Final = "hunyuan_custom.via_proxy"  # in the scope of calls that came through the proxy door
_DOORS: Final = ("/run/", "/queue/", "/rest/", "/cdn/")
_OURS: Final = (*_DOORS, "/files/", "/api/", "/health/", "/playground/", "/.well-known/", "/openapi.json/", "/metrics/")
# fal's documentation also writes /{app}/{subpath}/requests/...
_SUBPATH: Final = re.compile(rf"^(/queue/{ENDPOINT})/(?!requests/)[^?]+?(/requests/.*)$")


@lru_cache(maxsize=4096)  # those who poll ask for the same path ten times a second
def canonical_path(host: str, path: str) -> str:
    """The path with its door as prefix and without a trailing slash.

    >>> canonical_path("queue.fal.run", "/fal-ai/hunyuan-custom/")
    '/queue/fal-ai/hunyuan-custom'
    """
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


class Doors:
    """ASGI middleware that rewrites the path."""

    def __init__(self, app: ASGIApp, public_base_url: str | None) -> None:
        self._app = app
        self._own_hosts = frozenset([urlsplit(public_base_url).netloc.lower()] if public_base_url else [])

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the call on with its canonical path."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        try:
            changes = self._route(scope["path"], headers)
        except BadRequest as error:
            refused = error.response()
            await JSONResponse(refused.body, refused.status, refused.headers)(scope, receive, send)
            return
        await self._app({**scope, **changes}, receive, send)

    def _route(self, path: str, headers: Headers) -> Scope:
        if path.rstrip("/") != PROXY_PATH:
            path = canonical_path(headers.get("host", ""), path)
            return {"path": path, "raw_path": path.encode()}
        target = proxy_target(headers, self._own_hosts)
        path = canonical_path(target.host, unquote(target.path))
        if not path.startswith(_DOORS):
            raise BadRequest("Invalid request")
        return {"path": path, "raw_path": path.encode(), "query_string": target.query, VIA_PROXY: True}
