"""Limits of the HTTP surface: headers, bodies, slow senders and readers, and the headers of every answer."""

import asyncio
import contextlib
import json
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from unittest.mock import AsyncMock, Mock

import httpx
import psutil
import pytest
from starlette.types import Message, Receive, Scope, Send

from server.api.middleware.body_limits import BodyLimits
from server.api.middleware.body_memory import BodyMemory
from server.settings import ApiSettings
from tests.harness.keyed import client, create_key
from tests.harness.live_server import APP, Server, example, until
from tests.harness.raw_http import connect, read_all


def until_answered(call: Callable[[], httpx.Response], status: int) -> httpx.Response:
    """The first answer with that status: connections come and go a moment later than the client thinks."""
    answers: list[httpx.Response] = []

    def asked() -> bool:
        answers.append(call())
        return answers[-1].status_code == status

    until(asked)
    return answers[-1]


def head(path: str = f"/queue/{APP}", *, length: int, **headers: str) -> bytes:
    lines = [f"POST {path} HTTP/1.1", "Host: localhost", f"Content-Length: {length}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode()


@pytest.mark.parametrize("path", [f"/queue/{APP}", "/health/live", "/nothing"])
def test_headers_over_16_kb_are_431(server: Server, path: str) -> None:
    assert server.http.get(path, headers={"x-long": "x" * 15_000}).status_code != 431
    answer = server.http.get(path, headers={"x-long": "x" * 17_000})
    assert (answer.status_code, answer.json()["error_type"]) == (431, "bad_request")
    assert answer.headers["x-fal-request-id"]
    assert answer.headers["x-fal-error-type"] == "bad_request"


def test_a_long_url_is_431(server: Server) -> None:
    assert server.http.get("/health/live", params={"x": "y" * 17_000}).status_code == 431


def test_endless_headers_are_cut_off_before_they_fill_the_memory(impatient: Server) -> None:
    with connect(impatient) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\nX-Endless: ")
        sent = 0
        try:
            while sent < 64 * 2**20:
                connection.sendall(b"x" * 65536)
                sent += 65536
        except (BrokenPipeError, ConnectionResetError):
            pass
        assert sent < 32 * 2**20
    assert impatient.http.get("/health/live").status_code == 200


def test_headers_that_drip_end_the_connection(impatient: Server) -> None:
    with connect(impatient) as connection:
        started = time.monotonic()
        connection.sendall(b"GET /health/live HTTP/1.1\r\n")
        assert read_all(connection) == b""
        assert time.monotonic() - started < 30


def test_a_newline_after_an_answer_keeps_no_connection(impatient: Server) -> None:
    with connect(impatient) as connection:
        connection.sendall(b"GET /health/live HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert connection.recv(65536).startswith(b"HTTP/1.1 200")
        connection.sendall(b"\r\n")
        started = time.monotonic()
        read_all(connection)
        assert time.monotonic() - started < 30


def test_a_connection_that_says_nothing_is_ended(impatient: Server) -> None:
    with connect(impatient) as connection:
        assert read_all(connection) == b""


def test_a_kept_connection_serves_many_requests_with_fresh_limits(impatient: Server) -> None:
    with connect(impatient) as connection:
        for _ in range(4):
            connection.sendall(b"GET /health/live HTTP/1.1\r\nHost: localhost\r\nX-Long: " + b"x" * 9000 + b"\r\n\r\n")
            said = b""
            while not said.endswith(b'{"status":"ok"}'):
                received = connection.recv(65536)
                assert received, "ended by the server"
                said += received
            assert said.startswith(b"HTTP/1.1 200")
            time.sleep(0.25)


@pytest.mark.parametrize("garbage", [b"\x16\x03\x01\x02\x00\x01\x00", b"SSH-2.0-x\r\n\r\n", b"GET\r\n\r\n", b"\0" * 40])
def test_what_is_no_http_is_answered_400_and_ended(server: Server, garbage: bytes) -> None:
    with connect(server) as connection:
        connection.sendall(garbage)
        head, _, body = read_all(connection).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 400 Bad Request\r\n")
    assert b"\r\nx-fal-request-id: " in head
    assert json.loads(body)["error_type"] == "bad_request"


def test_more_connections_than_allowed_are_503_and_the_others_are_served(start_api: Callable[..., Server]) -> None:
    server = start_api(api__max_connections=3)
    with contextlib.ExitStack() as stack:
        for _ in range(3):
            stack.enter_context(connect(server))
        one_more = stack.enter_context(httpx.Client(base_url=server.url, trust_env=False, timeout=60))
        answer = until_answered(lambda: one_more.get("/health/live"), 503)
        assert answer.json()["error_type"] == "runner_scheduling_failure"
        assert answer.headers["x-fal-request-id"]
        assert int(answer.headers["retry-after"]) >= 1
        assert answer.headers["connection"] == "close"
    assert until_answered(lambda: server.http.get("/health/live"), 200)


def test_two_content_lengths_are_refused(server: Server) -> None:
    with connect(server) as connection:
        connection.sendall(b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n{}x")
        assert read_all(connection).startswith(b"HTTP/1.1 400")


@pytest.mark.parametrize("path", [f"/queue/{APP}", f"/run/{APP}", "/rest/storage/upload/initiate", "/nothing"])
def test_a_declared_length_over_the_limit_is_413_before_a_byte_is_read(server: Server, path: str) -> None:
    with connect(server) as connection:
        connection.sendall(head(path, length=30 * 2**20 + 1))
        answer = connection.recv(65536)
        assert answer.startswith(b"HTTP/1.1 413")
        assert b"connection: close" in answer.lower()


def test_curl_is_not_told_to_continue_with_a_body_that_is_too_long(server: Server) -> None:
    with connect(server) as connection:
        connection.sendall(head(length=30 * 2**20 + 1, Expect="100-continue"))
        assert connection.recv(65536).startswith(b"HTTP/1.1 413")


EARLY = {
    "400": ("/api/fal/proxy", {}, b"400"),  # HostRewrite
    "403": (f"/queue/{APP}", {"Host": "evil.example"}, b"403"),  # LoopbackGuard
    "404": ("/nothing", {}, b"404"),
    "preflight": (f"/queue/{APP}", {"Origin": "http://localhost", "Access-Control-Request-Method": "POST"}, b"204"),
}


@pytest.mark.parametrize(
    ("case", "framing"),
    [
        ("400", "Content-Length: 30000000000"),
        ("403", "Content-Length: 30000000"),
        ("404", "Transfer-Encoding: chunked"),
        ("preflight", "Transfer-Encoding: chunked"),
    ],
)
def test_an_answer_before_the_end_of_the_body_ends_the_connection(server: Server, case: str, framing: str) -> None:
    path, headers, status = EARLY[case]
    method = "OPTIONS" if case == "preflight" else "POST"
    lines = [f"{name}: {value}" for name, value in ({"Host": "localhost"} | headers).items()]
    with connect(server) as connection:
        connection.sendall("\r\n".join([f"{method} {path} HTTP/1.1", *lines, framing, "", ""]).encode())
        started = time.monotonic()
        answer = connection.recv(65536)
        assert answer.split()[1] == status
        assert b"connection: close" in answer.lower()
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            for _ in range(100):  # a client that goes on sending is cut off
                connection.sendall(b"1\r\nx\r\n")
                time.sleep(0.1)
        assert time.monotonic() - started < 30


@pytest.mark.parametrize("beside", [b"X-Trailer: " + b"x" * 80 + b"\r\n", b"x" * 1000], ids=["trailers", "one trailer"])
def test_what_follows_a_chunked_body_is_limited(server: Server, beside: bytes) -> None:
    request = b"POST /run/%s HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n" % APP.encode()
    assert _bytes_taken(server, request + b"2\r\n{}\r\n0\r\nX: ", beside) < 8 * 2**20


def test_what_stands_before_a_chunk_is_limited(server: Server) -> None:
    request = b"POST /run/%s HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n" % APP.encode()
    assert _bytes_taken(server, request + b"2;x=", b"y" * 1000) < 8 * 2**20


def _bytes_taken(server: Server, start: bytes, piece: bytes) -> int:
    """How much of something endless the server reads, socket buffers included."""
    sent, pieces = 0, piece * (65536 // len(piece))
    with connect(server) as connection, contextlib.suppress(BrokenPipeError, ConnectionResetError):
        connection.sendall(start)
        while sent < 64 * 2**20:
            connection.sendall(pieces)
            sent += len(pieces)
    return sent


def test_trailers_are_read_over(server: Server) -> None:
    """Neither do they become headers: that would let a sender add some behind a proxy's back."""
    with connect(server) as connection:
        connection.sendall(
            b"POST /run/%s HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
            b"2\r\n{}\r\n0\r\nX-Forwarded-For: 203.0.113.7\r\n\r\n" % APP.encode()
        )
        assert read_all(connection).startswith(b"HTTP/1.1 422")


def test_a_streamed_body_is_counted(impatient: Server) -> None:
    answer = impatient.http.post(f"/queue/{APP}", content=(b"x" * 100_000 for _ in range(30)))
    assert answer.status_code == 413


def test_a_long_body_to_a_short_answer_does_not_grow_the_server(server: Server) -> None:
    api = psutil.Process(server.pid_of("api"))
    before = api.memory_info().rss
    for _ in range(3):
        answer = server.http.post("/nothing", content=b"x" * (29 * 2**20))
        assert answer.status_code == 404
    assert api.memory_info().rss - before < 60 * 2**20


@pytest.mark.parametrize("pause", [False, True])
def test_a_body_that_does_not_arrive_is_400_and_never_408(impatient: Server, pause: bool) -> None:
    with connect(impatient) as connection:
        connection.sendall(head(length=5000))
        started = time.monotonic()
        for _ in range(0 if pause else 20):  # one byte now and then: never idle, never done
            try:
                connection.sendall(b" ")
            except (BrokenPipeError, ConnectionResetError):
                break
            time.sleep(0.2)
        answer = read_all(connection)
        assert answer.startswith(b"HTTP/1.1 400")
        assert b"did not arrive in time" in answer
        assert time.monotonic() - started < 30


def test_a_sender_that_hangs_up_in_the_middle_leaves_nothing(impatient: Server) -> None:
    for _ in range(5):
        with connect(impatient) as connection:
            connection.sendall(head(length=900_000) + b"{" * 1000)
    assert impatient.finish(impatient.submit()).status_code == 200


def test_a_body_that_finds_no_memory_in_time_is_503_with_retry_after(impatient: Server) -> None:
    with connect(impatient) as hog:
        hog.sendall(head(length=990_000) + b"{")
        with connect(impatient) as other, connect(impatient) as third:
            other.sendall(head(length=990_000))
            third.sendall(head(length=500_000))
            with contextlib.suppress(ConnectionError):
                for _ in range(13):  # keeps the first from being idle, until its own deadline
                    hog.sendall(b" ")
                    time.sleep(0.1)
            answers = [read_all(connection) for connection in (other, third)]
    # One of them may get the memory of the first in the last moment, and is as slow; the other waits for both.
    refused = [answer for answer in answers if answer.split()[1] == b"503"]
    assert {answer.split()[1] for answer in answers} <= {b"400", b"503"}
    assert refused
    assert all(b"retry-after: 5" in answer.lower() for answer in refused)
    until(lambda: impatient.http.post(f"/queue/{APP}", json=example(padding="x" * 700_000)).status_code == 200)


def test_a_wait_for_memory_is_not_the_senders_time(monkeypatch: pytest.MonkeyPatch) -> None:
    now, settings, read = [0.0], ApiSettings(), []

    async def take_long(*_: object, **__: object) -> int:
        now[0] += settings.body_timeout_s
        return 0

    monkeypatch.setattr(BodyMemory, "take", take_long)
    monkeypatch.setattr("server.api.middleware.body_limits.time", SimpleNamespace(monotonic=lambda: now[0]))

    async def receive() -> Message:
        await asyncio.sleep(0.001)  # it arrives after a moment
        return {"type": "http.request", "body": b"all of it", "more_body": False}

    async def app(_scope: Scope, receive: Receive, _send: Send) -> None:
        read.append(await receive())

    scope = {"type": "http", "path": "/", "headers": [(b"content-length", b"9")]}
    limits = BodyLimits(app, settings, Mock())
    asyncio.run(limits(scope, receive, AsyncMock()))
    assert [message["body"] for message in read] == [b"all of it"]


def test_memory_is_granted_in_order_and_comes_back() -> None:
    async def scenario() -> None:
        budget = BodyMemory(10, 10)
        assert await budget.take("a", 6, timeout_s=1) == 6
        with pytest.raises(TimeoutError):
            await budget.take("b", 5, timeout_s=0.01)
        large = asyncio.create_task(budget.take("b", 10, timeout_s=1))
        await asyncio.sleep(0)
        small = asyncio.create_task(budget.take("c", 1, timeout_s=1))
        await asyncio.sleep(0)
        assert not small.done(), "it does not overtake"
        budget.give_back("a", 6)
        await large
        assert not small.done()
        budget.give_back("b", 10)
        await small
        assert await budget.take("a", 0, timeout_s=1) == 0
        budget.give_back("c", 1)
        assert await budget.take("a", 99, timeout_s=1) == 10, "more than there is: all of it"

    asyncio.run(scenario())


def test_no_owner_takes_more_than_a_share_of_the_memory() -> None:
    async def scenario() -> None:
        budget = BodyMemory(10, 6)
        await budget.take("slow", 5, timeout_s=1)
        own = asyncio.create_task(budget.take("slow", 3, timeout_s=1))
        await asyncio.sleep(0)
        await budget.take("other", 5, timeout_s=1)
        assert not own.done(), "there was enough, but not for this owner"
        budget.give_back("slow", 5)
        assert await own == 3

    asyncio.run(scenario())


def test_large_bodies_take_turns_and_one_slow_sender_keeps_no_other_owner_waiting(
    start_api: Callable[..., Server],
) -> None:
    memory = {"api__body_memory_bytes": 1_200_000, "api__body_memory_per_owner_bytes": 600_000}
    server = start_api(**memory)
    alice, bob = create_key(server, "alice"), create_key(server, "bob")
    large = example(prompt="", padding="x" * 500_000)

    def post(_: int = 0) -> int:
        return client(server, bob).post(f"/queue/{APP}", json=large).status_code

    with ThreadPoolExecutor(8) as callers:
        assert set(callers.map(post, range(8))) == {200}
    with contextlib.ExitStack() as stack:
        for _ in range(5):
            hog = stack.enter_context(connect(server))
            hog.sendall(head(length=590_000, Authorization=f"Key {alice}") + b"{")
        started = time.monotonic()
        assert post() == 200
        assert time.monotonic() - started < 30


def test_a_reader_that_takes_nothing_is_cut_off(start_api: Callable[..., Server]) -> None:
    server = start_api(api__write_timeout_s=1)
    urls = server.http.post("/rest/storage/upload/initiate", json={}).json()
    size = 18 * 2**20
    assert server.http.put(urls["upload_url"], content=b"\x89PNG\r\n\x1a\n".ljust(size, b"x")).status_code == 200
    api = psutil.Process(server.process.pid)

    def connections() -> int:
        return sum(one.status == psutil.CONN_ESTABLISHED for one in api.net_connections("tcp"))

    path = urls["file_url"].removeprefix(server.url)
    server.http.close()
    until(lambda: connections() == 0)
    with connect(server) as connection:
        connection.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        until(lambda: connections() == 1)
        until(lambda: connections() == 0)
        assert len(read_all(connection)) < size


@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", "/health/live"), ("GET", "/nothing"), ("POST", f"/run/{APP}"), ("DELETE", f"/queue/{APP}")],
)
def test_every_answer_has_the_security_headers(server: Server, method: str, path: str) -> None:
    headers = server.http.request(method, path).headers
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "no-referrer"
    assert headers["content-security-policy"] == "default-src 'none'; frame-ancestors 'none'"
    assert headers["cache-control"] == "no-store"
    assert "server" not in headers
