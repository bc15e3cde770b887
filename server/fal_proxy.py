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


def proxy_target(headers: Headers, own_hosts: frozenset[str]) -> Target:
    """Read the header; `own_hosts` are further names of this server, in lower case.

    Raises:
        BadRequest: no header, or not one of our hosts.
    """
    url = headers.get(TARGET_URL)
    if url is None:
        raise BadRequest(f"Missing the {TARGET_URL} header")
    try:
        parts = urlsplit(url)
        host = parts.netloc.lower()
    except ValueError:
        raise BadRequest("Invalid request") from None
    own = {headers.get("host", "").lower(), *own_hosts}
    if parts.scheme not in {"http", "https"} or (host not in own and host not in FAL_HOSTS) or not host:
        raise BadRequest("Invalid request")
    return Target(host, parts.path or "/", parts.query.encode("ascii", "replace"))
