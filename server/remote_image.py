"""Fetch `image_url`: bounded in time, bytes and redirects."""

import time

import httpx

from server.errors import FileDownloadError, FileTooLarge
from server.settings import ImageSettings

_MAX_REDIRECTS = 3


def fetch(url: str, limits: ImageSettings) -> bytes:
    """Download an http(s) URL.

    Raises:
        FileDownloadError: another scheme, unreachable, an error status, too many redirects or too slow.
        FileTooLarge: more bytes than allowed, counted as they arrive.
    """
    deadline = time.monotonic() + limits.total_timeout_s
    timeout = httpx.Timeout(limits.connect_timeout_s)
    try:
        with (
            # No proxies and no netrc from the environment; identity encoding, so that counted bytes are real bytes.
            httpx.Client(
                follow_redirects=True, max_redirects=_MAX_REDIRECTS, timeout=timeout, trust_env=False
            ) as client,
            client.stream("GET", url, headers={"Accept-Encoding": "identity"}) as response,
        ):
            response.raise_for_status()
            content = bytearray()
            for chunk in response.iter_bytes():
                content += chunk
                if len(content) > limits.max_bytes:
                    raise FileTooLarge(ctx={"max_size": limits.max_bytes})
                if time.monotonic() > deadline:
                    raise FileDownloadError
    except (httpx.HTTPError, httpx.InvalidURL, ValueError):
        raise FileDownloadError from None
    return bytes(content)
