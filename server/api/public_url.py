"""The base of every URL in an answer: fal's Python client follows them verbatim.

The configured `public_base_url`, else what the client used: its Host header, or what a configured proxy says about it
(X-Forwarded-Proto, -Host, -Prefix). Those headers are ignored in calls from other addresses.
"""

import ipaddress
import re
from collections.abc import Sequence

from fastapi import Request
from pydantic import IPvAnyNetwork

from server.api.services import services
from server.errors import BadRequest

_HOST = re.compile(r"[A-Za-z0-9._-]+(:[0-9]{1,5})?|\[[0-9A-Fa-f:.]+\](:[0-9]{1,5})?")
_PREFIX = re.compile(r"(/[A-Za-z0-9._~-]+)*")


def base_url(request: Request) -> str:
    """Scheme, host and prefix under which the client reaches this server, without a trailing slash.

    Raises:
        BadRequest: no URL can be made of the Host header.
    """
    api = services(request).settings.api
    if api.public_base_url:
        return api.public_base_url.rstrip("/")
    scheme, host, prefix = request.url.scheme, request.headers.get("host", ""), ""
    if _is_trusted(request.client.host if request.client else "", api.trusted_proxies):
        scheme = _last(request, "x-forwarded-proto") or scheme
        host = _last(request, "x-forwarded-host") or host
        prefix = _last(request, "x-forwarded-prefix").rstrip("/")
    if scheme not in {"http", "https"} or not _HOST.fullmatch(host) or not _PREFIX.fullmatch(prefix):
        raise BadRequest("Invalid Host header")
    return f"{scheme}://{host}{prefix}"


def _last(request: Request, name: str) -> str:
    """What the nearest proxy added; the values before it were sent by others."""
    return request.headers.get(name, "").rpartition(",")[2].strip()


def _is_trusted(peer: str, networks: Sequence[IPvAnyNetwork]) -> bool:
    if not networks:
        return False
    try:
        address = ipaddress.ip_address(peer)
    except ValueError:
        return False
    return any(address in network for network in networks)
