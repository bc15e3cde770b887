"""Fetch `image_url`: bounded in addresses, time, bytes and redirects."""

import logging
import time
from collections.abc import Callable

import httpcore
import httpx

from server.errors import FileDownloadError, FileTooLarge
from server.settings import ImageSettings
from server.untrusted.addresses import OutboundPolicy
from server.untrusted.pinned_connections import OutboundRefused, PinnedBackend

logger = logging.getLogger(__name__)

_MAX_REDIRECTS = 3
_REDIRECTS = {301, 302, 303, 307, 308}
_OK = 200

Backend = Callable[[float], httpcore.NetworkBackend]


class ImageFetcher:
    """Downloads for one worker. `backend` makes the connections of one download, which ends at the given deadline."""

    def __init__(self, limits: ImageSettings, policy: OutboundPolicy, backend: Backend | None = None) -> None:
        self._limits = limits
        self._policy = policy
        self._backend = backend or self._pinned

    def fetch(self, url: str) -> bytes:
        """Download an http(s) URL. Each redirect is a new URL, checked like the first.

        Raises:
            FileDownloadError: not an http(s) URL, not permitted, unreachable, an error status, too slow; which of
                them is in the service log only, since the answer would map the network for its caller.
            FileTooLarge: more bytes than allowed, counted as they arrive.
        """
        try:
            # No proxies, no netrc, no cookies: nothing of the environment takes part.
            with httpcore.ConnectionPool(
                ssl_context=httpx.create_ssl_context(trust_env=False),
                network_backend=self._backend(time.monotonic() + self._limits.total_timeout_s),
            ) as pool:
                target = httpx.URL(url)
                for _ in range(1 + _MAX_REDIRECTS):
                    found = self._get(pool, target)
                    if isinstance(found, bytes):
                        return found
                    target = found
        except (httpcore.ProtocolError, httpcore.NetworkError, httpcore.TimeoutException, OutboundRefused) as error:
            logger.info("image not fetched: %s: %s", type(error).__name__, error)
        except (httpx.InvalidURL, ValueError):
            logger.info("image not fetched: not a URL")
        raise FileDownloadError

    def _get(self, pool: httpcore.ConnectionPool, url: httpx.URL) -> bytes | httpx.URL:
        """The content, or where it has moved to."""
        if url.scheme not in {"http", "https"} or not url.host or url.userinfo:
            raise FileDownloadError
        # Identity encoding, so that counted bytes are real bytes: no decompression bombs.
        headers = [
            (b"host", url.netloc),
            (b"accept", b"image/png,image/jpeg,image/webp"),
            (b"accept-encoding", b"identity"),
            (b"user-agent", b"hunyuan-custom-server"),
            (b"connection", b"close"),
        ]
        target = httpcore.URL(
            scheme=url.raw_scheme, host=url.raw_host, port=url.port or None, target=url.raw_path or b"/"
        )
        with pool.stream("GET", target, headers=headers) as response:
            location = next((value for name, value in response.headers if name.lower() == b"location"), None)
            if response.status in _REDIRECTS and location is not None:
                return url.join(location.decode("ascii")).copy_with(fragment=None)
            if response.status != _OK:
                raise FileDownloadError
            return self._read(response)

    def _read(self, response: httpcore.Response) -> bytes:
        content = bytearray()
        for chunk in response.iter_stream():
            content += chunk
            if len(content) > self._limits.max_bytes:
                raise FileTooLarge(ctx={"max_size": self._limits.max_bytes})
        return bytes(content)

    def _pinned(self, deadline: float) -> httpcore.NetworkBackend:
        return PinnedBackend(self._policy, connect_timeout_s=self._limits.connect_timeout_s, deadline=deadline)
