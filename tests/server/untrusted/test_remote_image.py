"""What `image_url` may reach. Connector and resolver are stubs: no test opens a connection off loopback."""

import gzip
import ipaddress
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence

import httpcore
import pytest

from server.errors import FileDownloadError, FileTooLarge
from server.untrusted.addresses import OutboundPolicy
from server.untrusted.pinned_connections import PinnedBackend
from server.untrusted.remote_image import ImageFetcher
from tests.harness.outbound import LIMITS, OK, PUBLIC, REFUSED


class Network:
    """A resolver with a table and a connector that plays recorded answers; both remember what they were asked."""

    def __init__(self, answers: dict[str, bytes | Callable[[], bytes]], names: dict[str, Sequence[str]]) -> None:
        self.answers = answers
        self.names = names
        self.connected: list[str] = []
        self.resolved: list[str] = []
        self.sent = b""

    def resolve(self, host: str, port: int) -> Sequence[str]:
        self.resolved.append(host)
        if host in self.names:
            return self.names[host]
        # Numeric spellings are the C library's business; this flag keeps it from asking a resolver.
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
        return [str(answer[4][0]) for answer in found]

    def connect(self, address: str, port: int, timeout: float) -> httpcore.NetworkStream:
        assert timeout > 0
        self.connected.append(f"{address}:{port}")
        answer = self.answers.get(address, OK)
        return Stream(self, answer if isinstance(answer, bytes) else answer())


class Stream(httpcore.NetworkStream):
    def __init__(self, network: Network, answer: bytes) -> None:
        self._network = network
        self._answer = answer

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        assert timeout is not None
        chunk, self._answer = self._answer[:max_bytes], self._answer[max_bytes:]
        return chunk

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        assert timeout is not None
        self._network.sent += buffer

    def close(self) -> None:
        pass

    def get_extra_info(self, info: str) -> object:  # noqa: ARG002
        return None


def fetch(
    url: str,
    *,
    names: dict[str, Sequence[str]] | None = None,
    answers: dict[str, bytes | Callable[[], bytes]] | None = None,
    allowed: Sequence[str] = (),
) -> tuple[Network, bytes | type[Exception]]:
    network = Network(answers or {}, names or {})
    policy = OutboundPolicy([ipaddress.ip_network(network) for network in allowed])

    def backend(deadline: float) -> httpcore.NetworkBackend:
        return PinnedBackend(
            policy, connect_timeout_s=1, deadline=deadline, resolve=network.resolve, connect=network.connect
        )

    try:
        return network, ImageFetcher(LIMITS, policy, backend, pauses_s=(0.01, 0.01)).fetch(url)
    except (FileDownloadError, FileTooLarge) as error:
        assert "127." not in str(error)
        assert "refused" not in str(error), "the answer must not map the network"
        return network, FileTooLarge if isinstance(error, FileTooLarge) else FileDownloadError


@pytest.mark.parametrize("url", REFUSED)
def test_a_refused_url_is_never_connected_to(url: str) -> None:
    network, outcome = fetch(url, names={"localhost": ["127.0.0.1", "::1"]})
    assert outcome is FileDownloadError
    assert not network.connected


# By the IANA registries and the manuals of the clouds, not by our own list.
NETWORKS = [
    "0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "168.63.129.16/32", "169.254.0.0/16", "172.16.0.0/12",
    "192.0.0.0/24", "192.0.2.0/24", "192.88.99.0/24", "192.168.0.0/16", "198.18.0.0/15", "198.51.100.0/24",
    "203.0.113.0/24", "224.0.0.0/4", "240.0.0.0/4",
    "::/128", "::1/128", "::ffff:0:0:0/96", "64:ff9b::/96", "64:ff9b:1::/48", "100::/64", "2001::/23", "2001:db8::/32",
    "2002::/16", "3fff::/20", "5f00::/16", "fc00::/7", "fe80::/10", "fec0::/10", "ff00::/8",
]  # fmt: skip


@pytest.mark.parametrize("network", NETWORKS)
def test_a_network_is_denied_from_its_first_to_its_last_address(network: str) -> None:
    denied = ipaddress.ip_network(network)
    for port in (80, 443):
        for address in (denied[0], denied[-1]):
            assert not OutboundPolicy().permits(str(address), port)
            if address.version == 4:
                assert not OutboundPolicy().permits(f"::ffff:{address}", port), "mapped"


@pytest.mark.parametrize(
    "address",
    ["1.0.0.0", "9.255.255.255", "11.0.0.0", "100.63.255.255", "100.128.0.0", "126.255.255.255", "128.0.0.0",
     "168.63.129.15", "168.63.129.17", "169.253.255.255", "169.255.0.0", "172.15.255.255", "172.32.0.0", "192.0.1.0",
     "192.167.255.255", "192.169.0.0", "198.17.255.255", "198.20.0.0", "223.255.255.255", "2001:200::",
     "2001:db7:ffff::", "2001:db9::", "2003::", "2606:2800:220:1::1", "3ffe:ffff::"],
)  # fmt: skip
def test_the_neighbours_of_denied_networks_are_permitted(address: str) -> None:
    assert OutboundPolicy().permits(address, 80)
    assert OutboundPolicy().permits(address, 443)
    assert not OutboundPolicy().permits(address, 8080)


@pytest.mark.parametrize("host", [PUBLIC, "[2606:2800:220:1::1]", "[::ffff:5db8:d822]", "0x5d.0xb8d822"])
def test_public_addresses_are_reached(host: str) -> None:
    network, outcome = fetch(f"http://{host}/woman.png?x=1#fragment")
    assert outcome == b"image"
    assert len(network.connected) == 1
    request = network.sent.decode()
    assert request.startswith("GET /woman.png?x=1 HTTP/1.1\r\n")
    assert "accept-encoding: identity" in request.lower()
    assert "cookie" not in request.lower()


def test_a_name_is_resolved_once_and_its_address_used() -> None:
    answers: Iterator[Sequence[str]] = iter([[PUBLIC], ["127.0.0.1"]])

    class Rebinding(dict[str, Sequence[str]]):
        def __getitem__(self, name: str) -> Sequence[str]:
            return next(answers)

    network, outcome = fetch("http://rebinding.example/x", names=Rebinding({"rebinding.example": []}))
    assert outcome == b"image"
    assert network.connected == [f"{PUBLIC}:80"]
    assert len(network.resolved) == 1


@pytest.mark.parametrize("addresses", [["127.0.0.1", PUBLIC], [PUBLIC, "::1"], ["10.0.0.1"], []])
def test_a_name_with_one_bad_address_is_refused(addresses: list[str]) -> None:
    network, outcome = fetch("http://mixed.example/x", names={"mixed.example": addresses})
    assert outcome is FileDownloadError
    assert not network.connected


def test_the_next_address_is_tried_when_one_is_down() -> None:
    def down() -> bytes:
        raise httpcore.ConnectError("down")

    other = "93.184.216.35"
    network, outcome = fetch("http://two.example/x", names={"two.example": [PUBLIC, other]}, answers={PUBLIC: down})
    assert outcome == b"image"
    assert network.connected == [f"{PUBLIC}:80", f"{other}:80"]


def _redirect(to: str, status: int = 302) -> bytes:
    return f"HTTP/1.1 {status} Found\r\nLocation: {to}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".encode()


@pytest.mark.parametrize(
    "to",
    [
        "http://127.0.0.1/x",
        "http://169.254.169.254/latest/meta-data/",
        "http://internal.example/x",
        f"http://{PUBLIC}:22/",
        f"http://user@{PUBLIC}/",
        "file:///etc/passwd",
        "gopher://127.0.0.1/x",
        "//[::1]/x",
    ],
)
def test_a_redirect_is_judged_like_the_first_url(to: str) -> None:
    network, outcome = fetch("http://a.example/x", names={"a.example": [PUBLIC], "internal.example": ["10.1.1.1"]},
                             answers={PUBLIC: _redirect(to)})  # fmt: skip
    assert outcome is FileDownloadError
    assert network.connected == [f"{PUBLIC}:80"]


def test_five_redirects_are_followed_and_no_more() -> None:
    hosts = {f"h{n}.example": [f"93.184.216.{n}"] for n in range(1, 8)}
    answers: dict[str, bytes | Callable[[], bytes]] = {
        f"93.184.216.{n}": _redirect(f"http://h{n + 1}.example/", 307) for n in range(1, 6)
    }
    network, outcome = fetch("http://h1.example/", names=hosts, answers=answers)
    assert (outcome, len(network.connected)) == (b"image", 6)
    network, outcome = fetch("http://h1.example/", names=hosts, answers=answers | {"93.184.216.6": _redirect("/y")})
    assert (outcome, len(network.connected)) == (FileDownloadError, 6)


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 500 Oops\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 206 Partial Content\r\nContent-Length: 1\r\n\r\nx",
        b"HTTP/1.1 302 Found\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\ntruncated",
        b"SSH-2.0-OpenSSH_9.6\r\n",
        b"",
        b"HTTP/1.1 200 OK\r\nX: " + b"x" * 200_000 + b"\r\n\r\n",
    ],
)
def test_any_other_answer_is_a_failed_download(answer: bytes) -> None:
    _, outcome = fetch("http://a.example/x", names={"a.example": [PUBLIC]}, answers={PUBLIC: answer})
    assert outcome is FileDownloadError


UNAVAILABLE = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n"
TOO_MANY = b"HTTP/1.1 429 Too Many Requests\r\nContent-Length: 0\r\n\r\n"
NOT_FOUND = b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"


def _reset() -> bytes:
    """During the TLS handshake, which httpcore calls a failed connection."""
    try:
        raise ConnectionResetError
    except ConnectionResetError as error:
        raise httpcore.ConnectError from error


@pytest.mark.parametrize(
    ("said", "outcome", "calls"),
    [
        ([UNAVAILABLE, OK], b"image", 2),
        ([TOO_MANY, b"", OK], b"image", 3),
        ([_reset, _reset, OK], b"image", 3),
        ([UNAVAILABLE, TOO_MANY, UNAVAILABLE, OK], FileDownloadError, 3),
        ([_reset, _reset, _reset, OK], FileDownloadError, 3),
        ([NOT_FOUND, OK], FileDownloadError, 1),
        ([UNAVAILABLE, NOT_FOUND, OK], FileDownloadError, 2),
    ],
)
def test_a_transient_failure_is_tried_twice_more(
    said: list[bytes | Callable[[], bytes]], outcome: object, calls: int
) -> None:
    answers = iter(said)

    def answer() -> bytes:
        following = next(answers)
        return following if isinstance(following, bytes) else following()

    network, found = fetch("http://a.example/x", names={"a.example": [PUBLIC]}, answers={PUBLIC: answer})
    assert (found, len(network.connected)) == (outcome, calls)


def test_a_name_that_leads_elsewhere_at_the_second_try_is_refused() -> None:
    answers: Iterator[Sequence[str]] = iter([[PUBLIC], ["127.0.0.1"]])

    class Rebinding(dict[str, Sequence[str]]):
        def __getitem__(self, name: str) -> Sequence[str]:
            return next(answers)

    network, outcome = fetch("http://a.example/x", names=Rebinding({"a.example": []}), answers={PUBLIC: UNAVAILABLE})
    assert (outcome, network.connected) == (FileDownloadError, [f"{PUBLIC}:80"])


@pytest.mark.parametrize("head", [b"Content-Length: 1001", b"Connection: close", b"Content-Length: 9999999999999"])
def test_bytes_are_counted_whatever_the_origin_declares(head: bytes) -> None:
    answer = b"HTTP/1.1 200 OK\r\n" + head + b"\r\n\r\n" + b"x" * 1001
    _, outcome = fetch("http://a.example/x", names={"a.example": [PUBLIC]}, answers={PUBLIC: answer})
    assert outcome is FileTooLarge


@pytest.mark.parametrize("zeros", [500, 10**6])
def test_what_an_origin_compresses_uninvited_stays_compressed(zeros: int) -> None:
    """We ask for identity. Nothing is unpacked, so the bytes that are counted are all there are."""
    packed = gzip.compress(b"\0" * zeros)
    head = b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(packed)
    _, outcome = fetch("http://a.example/x", names={"a.example": [PUBLIC]}, answers={PUBLIC: head + packed})
    assert outcome == packed if len(packed) <= LIMITS.max_bytes else outcome is FileTooLarge


def test_a_listed_network_is_reached_on_any_port() -> None:
    network, outcome = fetch("http://127.0.0.1:8123/x", allowed=["127.0.0.0/8"])
    assert (outcome, network.connected) == (b"image", ["127.0.0.1:8123"])
    assert fetch("http://10.0.0.1/x", allowed=["127.0.0.0/8"])[1] is FileDownloadError
    assert fetch(f"http://{PUBLIC}:8080/x", allowed=["127.0.0.0/8"])[1] is FileDownloadError


def test_a_name_that_does_not_exist_is_a_failed_download() -> None:
    network, outcome = fetch("http://no.such.example/x")
    assert outcome is FileDownloadError
    assert not network.connected


def test_a_dripping_origin_is_cut_off_at_the_deadline() -> None:
    class Dripping(Stream):
        def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
            assert timeout is not None
            return b"H"[:max_bytes]

    network = Network({}, {"slow.example": [PUBLIC]})

    def backend(_deadline: float) -> httpcore.NetworkBackend:
        def connect(_address: str, _port: int, _timeout: float) -> httpcore.NetworkStream:
            return Dripping(network, b"")

        policy = OutboundPolicy()
        deadline = time.monotonic() + 0.05
        return PinnedBackend(policy, connect_timeout_s=1, deadline=deadline, resolve=network.resolve, connect=connect)

    with pytest.raises(FileDownloadError):
        ImageFetcher(LIMITS, OutboundPolicy(), backend).fetch("http://slow.example/x")


def test_a_name_server_that_says_nothing_is_not_waited_for() -> None:
    answered = threading.Event()

    def resolve(_host: str, _port: int) -> Sequence[str]:
        answered.wait(10)
        return [PUBLIC]

    def connect(_address: str, _port: int, _timeout: float) -> httpcore.NetworkStream:
        raise AssertionError("the time was over")

    def backend(_deadline: float) -> httpcore.NetworkBackend:
        deadline = time.monotonic() + 0.05
        return PinnedBackend(OutboundPolicy(), connect_timeout_s=1, deadline=deadline, resolve=resolve, connect=connect)

    started = time.monotonic()
    with pytest.raises(FileDownloadError):
        ImageFetcher(LIMITS, OutboundPolicy(), backend).fetch("http://slow.example/x")
    assert time.monotonic() - started < 10
    answered.set()


def test_the_environment_has_no_say(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9/")
    network, outcome = fetch("http://a.example/x", names={"a.example": [PUBLIC]})
    assert (outcome, network.connected) == (b"image", [f"{PUBLIC}:80"])
