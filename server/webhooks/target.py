"""A `fal_webhook` is checked at submit as far as that needs no network, and completely when it is called."""

import re
import socket

import httpx

from server.errors import InvalidInput
from server.untrusted.addresses import OutboundPolicy

_LONGEST = 2048
_HOST = re.compile(r"[A-Za-z0-9._:-]+")  # a name in its ASCII form, or an address


def check_webhook_url(url: str, policy: OutboundPolicy) -> str:
    """The URL without the whitespace around it, if it may be called.

    Raises:
        InvalidInput: no http(s) URL, or one to an address that is not permitted.
    """
    url = url.strip()
    try:
        parsed = httpx.URL(url)
    except (httpx.InvalidURL, ValueError):
        raise _bad(url, "url_parsing", "Input should be a valid URL") from None
    if parsed.scheme not in {"http", "https"}:
        raise _bad(url, "url_scheme", "URL scheme should be 'http' or 'https'")
    if not parsed.host or parsed.userinfo or len(url) > _LONGEST:
        raise _bad(url, "value_error", f"URL should have a host, no credentials and at most {_LONGEST} characters")
    if not _HOST.fullmatch(parsed.raw_host.decode()):
        raise _bad(url, "url_parsing", "Input should be a valid URL")
    if parsed.port is not None and not 0 < parsed.port < 2**16:
        raise _bad(url, "url_parsing", "Input should be a valid URL")
    port = parsed.port or (443 if parsed.scheme == "https" else 80)
    if not all(policy.permits(address, port) for address in _literal_addresses(parsed.raw_host.decode(), port)):
        raise _bad(url, "value_error", "URL leads to a private network; see allow_private_networks")
    if port not in {80, 443} and not policy.allowed:
        raise _bad(url, "value_error", "URL port should be 80 or 443")
    return url


def _literal_addresses(host: str, port: int) -> list[str]:
    """The addresses that a host spells out, in whatever spelling; none for a name, which is resolved when called."""
    name = host.lower().rstrip(".")
    if name == "localhost" or name.endswith(".localhost"):
        return ["127.0.0.1"]
    try:
        found = socket.getaddrinfo(name, port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
    except (OSError, UnicodeError):
        return []
    return [str(answer[4][0]) for answer in found]


def _bad(url: str, kind: str, message: str) -> InvalidInput:
    shown = url[:200].encode("utf-8", "backslashreplace").decode()
    return InvalidInput([{"type": kind, "loc": ["query", "fal_webhook"], "msg": message, "input": shown}])
