"""Which of fal's hosts is meant, decided before routing.

fal spreads its API over hosts; here they are path prefixes on one port, and every other spelling is rewritten to
them (the bodies are byte-identical for run and queue, so only host or path can tell them apart):

    fal.run            /run/...     also the bare path /fal-ai/...
    queue.*            /queue/...
    rest[.alpha].fal.ai  /rest/...
    v3.fal.media       /cdn/...

Trailing slashes are accepted and never redirected: fal's async client follows no redirects.
"""

import uuid
from collections.abc import MutableMapping
from typing import Any

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

REQUEST_ID = "x-fal-request-id"
_BY_HOST = {
    "fal.run": "/run",
    "rest.fal.ai": "/rest",
    "rest.alpha.fal.ai": "/rest",
    "v3.fal.media": "/cdn",
}
_PREFIXES = ("/run/", "/queue/", "/rest/", "/cdn/", "/files/", "/api/", "/health/")


def canonical_path(host: str, path: str) -> str:
    """The path with its door as prefix and without a trailing slash.

    >>> canonical_path("queue.fal.run", "/fal-ai/hunyuan-custom/")
    '/queue/fal-ai/hunyuan-custom'
    """
    path = path.rstrip("/") or "/"
    name = host.partition(":")[0].lower()
    door = "/queue" if name.split(".")[0] == "queue" else _BY_HOST.get(name)
    if f"{path}/".startswith(_PREFIXES):
        return path
    if door:
        return f"{door}{path}"
    if path.startswith("/fal-ai/"):
        return f"/queue{path}" if "/requests/" in path else f"/run{path}"
    return path


class Doors:
    """ASGI middleware: rewrites the path and gives every response a request id."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the call on with its canonical path."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        path = canonical_path(Headers(scope=scope).get("host", ""), scope["path"])
        inner: MutableMapping[str, Any] = {**scope, "path": path, "raw_path": path.encode()}

        async def send_with_id(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                if REQUEST_ID not in headers:
                    headers[REQUEST_ID] = str(uuid.uuid4())
            await send(message)

        await self._app(inner, receive, send_with_id)
