"""Protects a server without keys, which trusts every caller on the loopback interface, from foreign web pages.

The pages in the user's browser reach that interface too. So the server answers only to names of this machine (a page
that rebinds its own name to 127.0.0.1 sends that name as Host), and changes nothing for pages that CORS does not allow.
A call that was forwarded came from another machine, whatever its Host says now, and is refused. A server with keys
needs none of this: no browser adds them by itself.
"""

import ipaddress
from collections.abc import Iterable
from functools import lru_cache
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from server.api.access.key_ring import KeyRing
from server.api.error_responses import to_response
from server.api.middleware.cors import origin_is_allowed
from server.errors import Forbidden
from server.fal.hosts import FAL_HOSTS
from server.settings import ApiSettings

_READING = {"GET", "HEAD", "OPTIONS"}


class LoopbackGuard:
    """ASGI middleware: Host allow-list and Origin check while there are no keys."""

    def __init__(self, app: ASGIApp, settings: ApiSettings, keys: KeyRing) -> None:
        self._app = app
        self._keys = keys
        self._origins = settings.cors_origins
        public = urlsplit(settings.public_base_url).hostname if settings.public_base_url else None
        own = [*settings.allowed_hosts, *([public] if public else [])]
        # Older fal clients derive the queue's host name from the other one.
        self._names = frozenset(_lower([*FAL_HOSTS, *own, *(f"queue.{name}" for name in own)]))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the call on, or answer 403."""
        if scope["type"] == "http" and not self._keys.required():
            refused = self._reason_to_refuse(scope["method"], Headers(scope=scope))
            if refused is not None:
                await to_response(Forbidden(refused))(scope, receive, send)
                return
        await self._app(scope, receive, send)

    def _reason_to_refuse(self, method: str, headers: Headers) -> str | None:
        if any(name == "forwarded" or name.startswith("x-forwarded-") for name in headers):
            return "Forwarded calls need a key; see `hunyuan-custom keys create`"
        host = headers.get("host", "")
        if host and not self._is_ours(host):
            return "Host not allowed; see api.allowed_hosts"
        origin = headers.get("origin")
        if origin is None or method in _READING or origin_is_allowed(origin, self._origins):
            return None
        own = (f"{scheme}://{host}".lower() for scheme in ("http", "https"))
        return None if origin.lower() in own else "Origin not allowed; see api.cors_origins"

    def _is_ours(self, host: str) -> bool:
        name = _name_in(host)
        return name in self._names or name == "localhost" or name.endswith(".localhost") or _is_loopback_literal(name)


@lru_cache(maxsize=256)  # called for every status poll, with one of very few names
def _name_in(host: str) -> str:
    try:
        return (urlsplit(f"//{host}").hostname or "").rstrip(".")
    except ValueError:
        return ""


@lru_cache(maxsize=256)
def _is_loopback_literal(name: str) -> bool:
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def _lower(names: Iterable[str]) -> list[str]:
    return [name.lower() for name in names]
