"""Connections to addresses that users name: only public ones, and only the very address that was checked.

The check sits where the connection is made, not where the URL is read: every spelling of an address (decimal, hex,
short, full-width, mapped, a name, a redirect) ends here as an IP address. All answers of the resolver must pass, and
the connection goes to one of them, so that a name cannot change its mind in between (DNS rebinding). The list is
explicit because `ipaddress.is_global` calls some metadata services and tunnels global, and changes with patch releases
of Python.
"""

import ipaddress
import socket
import ssl
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpcore

from server.errors import ServerError

IpAddress = ipaddress.IPv4Address | ipaddress.IPv6Address
IpNetwork = ipaddress.IPv4Network | ipaddress.IPv6Network

_PUBLIC_PORTS = (80, 443)

# IANA special-purpose registry, multicast, reserved, and the metadata services that lie in public space.
_DENIED_V4 = [
    ipaddress.IPv4Network(network)
    for network in (
        "0.0.0.0/8",
        "10.0.0.0/8",
        "100.64.0.0/10",  # shared address space; 100.100.100.200 is a metadata service
        "127.0.0.0/8",
        "168.63.129.16/32",  # Azure's wire server
        "169.254.0.0/16",  # link-local; 169.254.169.254 is the metadata service
        "172.16.0.0/12",
        "192.0.0.0/24",  # 192.0.0.192 is Oracle's metadata service
        "192.0.2.0/24",
        "192.88.99.0/24",
        "192.168.0.0/16",
        "198.18.0.0/15",
        "198.51.100.0/24",
        "203.0.113.0/24",
        "224.0.0.0/4",
        "240.0.0.0/4",
    )
]
# Everything outside 2000::/3 is refused: loopback, mapped, NAT64, unique local, link-local, site-local, multicast.
_UNICAST_V6 = ipaddress.IPv6Network("2000::/3")
_DENIED_V6 = [
    ipaddress.IPv6Network(network)
    for network in (
        "2001::/23",  # IETF assignments, Teredo among them
        "2001:db8::/32",
        "2002::/16",  # 6to4 carries any IPv4 address
        "3fff::/20",
    )
]

Resolve = Callable[[str, int], Sequence[str]]
Connect = Callable[[str, int, float], httpcore.NetworkStream]


class OutboundRefused(ServerError):
    """The address may not be reached. The message is for the service log, never for the user."""


class OutboundPolicy:
    """Which addresses may be reached: public ones on ports 80 and 443, and the networks that are listed, on any."""

    def __init__(self, allowed: Iterable[IpNetwork] = ()) -> None:
        self.allowed = tuple(allowed)

    def permits(self, address: str, port: int) -> bool:
        """Whether a connection to this address and port may be made."""
        ip = ipaddress.ip_address(address.partition("%")[0])
        if isinstance(ip, ipaddress.IPv6Address) and ip.ipv4_mapped is not None:
            ip = ip.ipv4_mapped
        return self._is_allowed(ip) or (_is_public(ip) and port in _PUBLIC_PORTS)

    def _is_allowed(self, ip: IpAddress) -> bool:
        return any(ip in network for network in self.allowed)


def _is_public(ip: IpAddress) -> bool:
    if isinstance(ip, ipaddress.IPv4Address):
        return not any(ip in network for network in _DENIED_V4)
    return ip in _UNICAST_V6 and not any(ip in network for network in _DENIED_V6)


def resolve(host: str, port: int) -> Sequence[str]:
    """All addresses of a name; numeric spellings are understood as the C library does, not as a browser."""
    answers = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [str(answer[4][0]) for answer in answers]


def connect(address: str, port: int, timeout: float) -> httpcore.NetworkStream:
    """A TCP connection to an address, not to a name."""
    return httpcore.SyncBackend().connect_tcp(address, port, timeout=timeout)


class PinnedBackend(httpcore.NetworkBackend):
    """httpcore's way out: resolve, check every answer, connect to what was checked, and all of it until a deadline."""

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
            httpcore.ConnectError: no such name, or nobody listens.
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
        """The C library knows no deadline: a thread asks it, and is left to itself when the time is over."""
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
