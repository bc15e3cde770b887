"""Fetch `image_url`: bounded in addresses, time, bytes and redirects."""

import logging
import time
from collections.abc import Callable, Iterator, Sequence

import httpcore
import httpx

from server.errors import FileDownloadError, FileTooLarge
from server.settings import ImageSettings
from server.untrusted.addresses import OutboundPolicy
from server.untrusted.pinned_connections import OutboundRefused, PinnedBackend

logger = logging.getLogger(__name__)

_MAX_REDIRECTS = 5
_REDIRECTS = {301, 302, 303, 307, 308}
_READ = {200, 203}  # 203: a proxy on the way has changed something
_TRANSIENT = {429, 502, 503, 504}

Backend = Callable[[float], httpcore.NetworkBackend]


class _Transient(FileDownloadError):
    """A status that may be another one in a second."""


class ImageFetcher:
    """Downloads for one worker.

    `backend` makes the connections of one download, which ends at the given deadline; `pauses_s` are those before the
    second and the third try.
    """

    def __init__(
        self,
        limits: ImageSettings,
        policy: OutboundPolicy,
        backend: Backend | None = None,
        *,
        pauses_s: Sequence[float] = (0.5, 1.5),
    ) -> None:
        self._limits = limits
        self._pauses_s = pauses_s
        self._policy = policy
        self._backend = backend or self._pinned

    def fetch(self, url: str) -> bytes:
        """Download an http(s) URL. Each redirect is a new URL, checked like the first.

        Raises:
            FileDownloadError: not an http(s) URL, not permitted, unreachable, an error status, too slow; which of
                them is in the service log only, since the answer would map the network for its caller.
            FileTooLarge: more bytes than allowed, counted as they arrive.
        """
        deadline = time.monotonic() + self._limits.total_timeout_s
        try:
            # No proxies, no netrc, no cookies: nothing of the environment takes part.
            with httpcore.ConnectionPool(
                ssl_context=httpx.create_ssl_context(trust_env=False),
                network_backend=self._backend(deadline),
            ) as pool:
                target, pauses = httpx.URL(url), iter(self._pauses_s)
                for _ in range(1 + _MAX_REDIRECTS):
                    found = self._tried(pool, target, pauses, deadline)
                    if isinstance(found, bytes):
                        return found
                    target = found
        except (httpcore.ProtocolError, httpcore.NetworkError, httpcore.TimeoutException, OutboundRefused) as error:
            logger.info("image not fetched: %s: %s", type(error).__name__, error)
        except (httpx.InvalidURL, ValueError):
            logger.info("image not fetched: not a URL")
        raise FileDownloadError

    def _tried(
        self, pool: httpcore.ConnectionPool, url: httpx.URL, pauses: Iterator[float], deadline: float
    ) -> bytes | httpx.URL:
        """The same as `_get`, tried again after a transient failure while there are pauses and time left."""
        while True:
            try:
                return self._get(pool, url)
            except (_Transient, httpcore.ProtocolError, httpcore.NetworkError) as error:
                pause = next(pauses, None) if _may_pass(error) else None
                if pause is None or time.monotonic() + pause >= deadline:
                    raise
                time.sleep(pause)

    def _get(self, pool: httpcore.ConnectionPool, url: httpx.URL) -> bytes | httpx.URL:
        """The content, or where it has moved to."""
        if url.scheme not in {"http", "https"} or not url.host or url.userinfo:
            raise FileDownloadError
        # Identity encoding, so that counted bytes are real bytes: no decompression bombs.
        headers = [
            (b"host", url.netloc),
            (b"accept", b"image/png,image/jpeg,image/webp,image/*;q=0.5,*/*;q=0.1"),
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
            if response.status in _TRANSIENT:
                raise _Transient
            if response.status not in _READ:
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


def _may_pass(error: Exception) -> bool:
    """Whether the connection broke off; a name that does not exist, or a closed port, stays so."""
    broke_off = (_Transient, httpcore.ReadError, httpcore.WriteError, httpcore.RemoteProtocolError)
    return isinstance(error, broke_off) or isinstance(error.__context__, ConnectionResetError)
