"""Connections to hosts that users name, made only to the very address that was checked.

The check is where the connection is made, not where the URL is read: every spelling of an address (decimal, hex,
short, full-width, mapped, a name, a redirect) ends here as an IP address. All answers of the resolver must pass, and
the connection goes to one of them, so that a name cannot change its meaning in between (DNS rebinding).
"""

import socket
import ssl
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpcore

from server.errors import ServerError
from server.untrusted.addresses import OutboundPolicy

Resolve = Callable[[str, int], Sequence[str]]
Connect = Callable[[str, int, float], httpcore.NetworkStream]


class OutboundRefused(ServerError):
    """The address may not be reached. The message is for the service log, never for the user."""


def resolve(host: str, port: int) -> Sequence[str]:
    """All addresses of a name; numeric spellings are understood as the C library does, not as a browser."""
    answers = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [str(answer[4][0]) for answer in answers]


def connect(address: str, port: int, timeout: float) -> httpcore.NetworkStream:
    """A TCP connection to an address, not to a name."""
    return httpcore.SyncBackend().connect_tcp(address, port, timeout=timeout)


class PinnedBackend(httpcore.NetworkBackend):
    """A network backend of httpcore: resolve, check every answer, connect to a checked one, all before a deadline."""

    def __init__(
        self,
        policy: OutboundPolicy,
        *,
        connect_timeout_s: float,
        deadline: float,
        resolve: Resolve = resolve,
        connect: Connect = connect,
    ) -> None:
        self._policy = policy
        self._connect_timeout_s = connect_timeout_s
        self._deadline = deadline
        self._resolve = resolve
        self._connect = connect

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ARG002 - httpcore's signature; our own limits hold
        local_address: str | None = None,  # noqa: ARG002
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,  # noqa: ARG002
    ) -> httpcore.NetworkStream:
        """Connect to the first address that answers.

        Raises:
            OutboundRefused: one of the addresses is not permitted; nothing was connected to.
            httpcore.ConnectError: no such name, or the connection was refused.
        """
        try:
            addresses = list(dict.fromkeys(self._resolve_in_time(host, port)))
        except (OSError, UnicodeError) as error:  # TimeoutError among them
            raise httpcore.ConnectError(str(error)) from error
        refused = [address for address in addresses if not self._policy.permits(address, port)]
        if refused or not addresses:
            raise OutboundRefused(f"{host}:{port} leads to {', '.join(refused) or 'nowhere'}")
        failure: Exception | None = None
        for address in addresses:
            try:
                stream = self._connect(address, port, min(self._connect_timeout_s, _left(self._deadline)))
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
                failure = error
            else:
                return _DeadlineStream(stream, self._deadline)
        raise failure or httpcore.ConnectError("no address")

    def _resolve_in_time(self, host: str, port: int) -> Sequence[str]:
        """The C library has no deadline: a thread calls it, and is abandoned when the time is over."""
        thread = ThreadPoolExecutor(1, "resolver")
        try:
            return thread.submit(self._resolve, host, port).result(_left(self._deadline))
        finally:
            thread.shutdown(wait=False)


class _DeadlineStream(httpcore.NetworkStream):
    """A stream whose every operation ends at the deadline: a peer that drips a byte a second gains nothing."""

    def __init__(self, stream: httpcore.NetworkStream, deadline: float) -> None:
        self._stream = stream
        self._deadline = deadline

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:  # noqa: ARG002
        return self._stream.read(max_bytes, _left(self._deadline))

    def write(self, buffer: bytes, timeout: float | None = None) -> None:  # noqa: ARG002
        self._stream.write(buffer, _left(self._deadline))

    def close(self) -> None:
        self._stream.close()

    def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,  # noqa: ARG002
    ) -> httpcore.NetworkStream:
        secured = self._stream.start_tls(ssl_context, server_hostname, _left(self._deadline))
        return _DeadlineStream(secured, self._deadline)

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)


def _left(deadline: float) -> float:
    left = deadline - time.monotonic()
    if left <= 0:
        raise httpcore.ReadTimeout("the time for this call is over")
    return left
