"""The load generator's HTTP client: kept-alive GET and POST with as little work as possible, because it shares the
cores with the server it measures."""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Self, cast
from urllib.parse import urlsplit


class Connection(asyncio.Protocol):
    """One connection, one request at a time."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._received = bytearray()
        self._answer: asyncio.Future[tuple[int, bytes]] | None = None
        self.closed = False

    @classmethod
    async def open(cls, url: str) -> Self:
        """Connect to the host of a URL."""
        parts = urlsplit(url)
        _, connection = await asyncio.get_running_loop().create_connection(cls, parts.hostname or "", parts.port or 80)
        return connection

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Part of the protocol."""
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is no subclass

    def connection_lost(self, _error: Exception | None) -> None:
        """Part of the protocol."""
        self.closed = True
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(ConnectionError("the server closed the connection"))

    def data_received(self, data: bytes) -> None:
        """Part of the protocol: an answer is whole when its Content-Length is there."""
        self._received += data
        head, found, _ = self._received.partition(b"\r\n\r\n")
        if not found or self._answer is None or self._answer.done():
            return
        start = head.lower().find(b"content-length:")
        length = int(head[start + 15 :].split(b"\r\n", 1)[0])
        if len(self._received) >= len(head) + 4 + length:
            body = bytes(self._received[len(head) + 4 :])
            self._received.clear()
            self._answer.set_result((int(head[9:12]), body))

    async def request(self, request: bytes) -> tuple[int, bytes]:
        """Send a whole request; returns status and body."""
        self._answer = asyncio.get_running_loop().create_future()
        assert self._transport is not None  # noqa: S101
        self._transport.write(request)
        return await self._answer

    def close(self) -> None:
        """Hang up."""
        if self._transport is not None:
            self._transport.close()


def get(path: str) -> bytes:
    """A GET as bytes."""
    return f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Key bench:bench\r\n\r\n".encode()


def post(path: str, body: bytes) -> bytes:
    """A POST of JSON as bytes."""
    head = f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


@dataclass
class Latencies:
    """Seconds per answer."""

    seconds: list[float] = field(default_factory=list)
    failed: int = 0

    def percentile(self, share: float) -> float:
        """The time within which that share of all answers came."""
        ordered = sorted(self.seconds)
        return ordered[min(len(ordered) - 1, int(len(ordered) * share))] if ordered else float("inf")

    def within(self, limit_s: float) -> bool:
        """Whether 99 % of the answers came in that time, and all were what they should be."""
        return self.percentile(0.99) <= limit_s and not self.failed

    def words(self) -> str:
        """Count, median and p99 in milliseconds."""
        tail = f"p50 {1000 * self.percentile(0.5):.1f} ms, p99 {1000 * self.percentile(0.99):.1f} ms"
        return f"{len(self.seconds)} answers, {self.failed} failed, {tail}"


async def closed_loop(url: str, request: bytes, *, connections: int, seconds: float) -> float:
    """Answers per second when every connection asks again as soon as it has its answer."""
    until = time.monotonic() + seconds

    async def ask() -> int:
        connection = await Connection.open(url)
        answers = 0
        while time.monotonic() < until:
            status, _ = await connection.request(request)
            answers += status in {200, 202}
        connection.close()
        return answers

    return sum(await asyncio.gather(*(ask() for _ in range(connections)))) / seconds


async def pollers(
    url: str, next_request: Callable[[], bytes], *, count: int, every_s: float, seconds: float
) -> Latencies:
    """Clients that poll at a fixed rate, started evenly; a late answer does not delay the next question's due time."""
    found = Latencies()
    begin = time.monotonic()

    async def poll(number: int) -> None:
        connection = await Connection.open(url)
        due = begin + every_s * number / count
        while due < begin + seconds:
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            asked = time.monotonic()
            status, _ = await connection.request(next_request())
            found.seconds.append(time.monotonic() - asked)
            found.failed += status not in {200, 202}
            due = max(due + every_s, asked)
        connection.close()

    await asyncio.gather(*(poll(number) for number in range(count)))
    return found
