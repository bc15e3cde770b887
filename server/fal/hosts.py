"""The door for `proxyUrl` of fal's JS client: `ANY /api/fal/proxy` with the real address in `x-fal-target-url`.

The call is dispatched to this server's own routes; nothing is ever fetched from anywhere. Targets are fal's hosts and
this server itself (a client that rewrites URLs before it proxies them names us); any other is refused.
"""

from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

from starlette.datastructures import Headers

from server.errors import BadRequest

PROXY_PATH: Final = "/api/fal/proxy"
VIA_PROXY: Final = "hunyuan_custom.via_proxy"  # in the scope of calls that came through this door
TARGET_URL: Final = "x-fal-target-url"
FAL_HOSTS: Final = {
    "fal.run": "/run",
    "queue.fal.run": "/queue",
    "rest.fal.ai": "/rest",
    "rest.alpha.fal.ai": "/rest",
    "v3.fal.media": "/cdn",
}


@dataclass(frozen=True, slots=True)
class Target:
    """Where a proxied call goes, in the terms of an ordinary one."""

    host: str
    path: str
    query: bytes


def proxy_target(headers: Headers, own_base: str) -> Target:
    """Read the header; `own_base` is the URL under which this caller reaches the server, perhaps with a path prefix.

    Raises:
        BadRequest: no header, or not one of our hosts.
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
