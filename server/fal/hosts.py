"""fal's hosts as paths of this server.

fal spreads its API over hosts; here they are path prefixes on one port, and every other spelling is rewritten to them
(the bodies of run and queue are the same, so only host or path can tell the two apart):

    fal.run              /run/...     also the bare path /fal-ai/...
    queue.*              /queue/...   also a bare path with /requests/ in it
    rest[.alpha].fal.ai  /rest/...
    v3.fal.media         /cdn/...
    x-fal-target-url     any of them, through /api/fal/proxy: `proxyUrl` of fal's JavaScript client

Trailing slashes are accepted and never redirected: fal's async client follows no redirects.
"""

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Final
from urllib.parse import urlsplit

from starlette.datastructures import Headers

from server.errors import BadRequest, NotFound
from server.fal.schemas import ENDPOINT

FAL_HOSTS: Final = {
    "fal.run": "/run",
    "queue.fal.run": "/queue",
    "rest.fal.ai": "/rest",
    "rest.alpha.fal.ai": "/rest",
    "v3.fal.media": "/cdn",
}
FAL_PREFIXES: Final = ("/run/", "/queue/", "/rest/", "/cdn/")
PROXY_PATH: Final = "/api/fal/proxy"
TARGET_URL: Final = "x-fal-target-url"

_OWN_PREFIXES: Final = (*FAL_PREFIXES, "/files/", "/api/", "/health/", "/.well-known/", "/metrics/", "/openapi.json/")
_APPLICATION: Final = f"/queue/{ENDPOINT}/"
_REQUESTS: Final = "/requests/"
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_LONGEST_CACHED: Final = 256  # clients choose the paths: longer ones would cost memory


@dataclass(frozen=True, slots=True)
class Target:
    """Where a proxied call goes."""

    host: str
    path: str
    query: bytes


def canonical_path(host: str, path: str) -> str:
    """The path with its prefix and without a trailing slash.

    >>> canonical_path("queue.fal.run", "/fal-ai/hunyuan-custom/")
    '/queue/fal-ai/hunyuan-custom'

    Raises:
        NotFound: the path contains control characters; no path of this server does.
    """
    return (_cached if len(host) + len(path) <= _LONGEST_CACHED else _canonical)(host, path)


def _canonical(host: str, path: str) -> str:
    if _CONTROL.search(path):
        raise NotFound if _REQUESTS in path else NotFound("Path not found")
    path = path.rstrip("/") or "/"
    prefix = _prefix_of(host)
    # The file hosts have paths of their own that look like ours: v3.fal.media/files/upload.
    known = ("/rest/", "/cdn/") if prefix in {"/rest", "/cdn"} else _OWN_PREFIXES
    if not f"{path}/".startswith(known):
        if prefix:
            path = f"{prefix}{path}"
        elif path.startswith("/fal-ai/"):
            path = f"/queue{path}" if _REQUESTS in path else f"/run{path}"
    return _without_subpath(path)


_cached = lru_cache(maxsize=4096)(_canonical)  # clients that poll ask for the same path ten times a second


def _prefix_of(host: str) -> str | None:
    name, _, port = host.rpartition(":")
    name = (name if port.isdigit() else host).lower()
    return "/queue" if name.split(".")[0] == "queue" else FAL_HOSTS.get(name)


def _without_subpath(path: str) -> str:
    """fal's documentation also writes /queue/{app}/{subpath}/requests/..."""
    if not path.startswith(_APPLICATION) or path.startswith(_REQUESTS, len(_APPLICATION) - 1):
        return path
    end = path.find(_REQUESTS, len(_APPLICATION) + 1)
    if end < 0 or "?" in path[:end]:  # an encoded one: the path is decoded
        return path
    return _APPLICATION[:-1] + path[end:]


def proxy_target(headers: Headers, own_base: str) -> Target:
    """Where a call of `PROXY_PATH` goes: to one of fal's hosts, which are all this server, or to this server itself.

    Nothing is ever fetched from anywhere. A client that rewrites URLs before it proxies them names this server;
    `own_base` is the URL under which it reaches the server, perhaps with a path prefix.

    Raises:
        BadRequest: no header, or another host.
    """
    url = headers.get(TARGET_URL)
    if url is None:
        raise BadRequest(f"Missing the {TARGET_URL} header")
    try:
        parts, own = urlsplit(url), urlsplit(own_base)
        host = parts.netloc.lower()
    except ValueError:
        raise BadRequest("Invalid request") from None
    path = parts.path or "/"
    if host == own.netloc.lower() and f"{path}/".startswith(f"{own.path}/"):
        path = path.removeprefix(own.path) or "/"
    elif host not in {*FAL_HOSTS, headers.get("host", "").lower()}:
        host = ""
    if parts.scheme not in {"http", "https"} or not host:
        raise BadRequest("Invalid request")
    return Target(host, path, parts.query.encode("ascii", "replace"))
