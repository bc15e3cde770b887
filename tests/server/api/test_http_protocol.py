"""Offers of an upgrade, which this server never takes: it answers as if there were none (RFC 9110, 7.8)."""

import json
import shutil
import socket
import subprocess
import time
from pathlib import Path

import httpx
import pytest

from tests.harness.live_server import APP, Server, example
from tests.harness.raw_http import read_all

H2C = {"Connection": "Upgrade, HTTP2-Settings", "Upgrade": "h2c", "HTTP2-Settings": "AAMAAABkAARAAAAAAAIAAAAA"}
WEBSOCKET = {"Connection": "keep-alive, Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13"}
PATH = f"/queue/{APP}"


def request(body: bytes, offer: dict[str, str], *, chunked: bool = False) -> bytes:
    lines = [f"POST {PATH} HTTP/1.1", "Host: localhost", *(f"{name}: {value}" for name, value in offer.items())]
    if chunked:
        lines.append("Transfer-Encoding: chunked")
        body = b"%x;x=y\r\n%s\r\n0\r\n\r\n" % (len(body), body)
    else:
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*lines, "", ""]).encode() + body


def answer(connection: socket.socket) -> tuple[int, dict[str, object]]:
    """The next answer on the connection."""
    said = b""
    while b"\r\n\r\n" not in said:
        said += connection.recv(65536)
    head, _, body = said.partition(b"\r\n\r\n")
    (length,) = [int(line.split(b":")[1]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length")]
    while len(body) < length:
        body += connection.recv(65536)
    assert len(body) == length
    return int(head.split()[1]), json.loads(body)


def connect(server: Server) -> socket.socket:
    url = httpx.URL(server.url)
    return socket.create_connection((url.host, url.port or 80), timeout=20)


@pytest.mark.parametrize("offer", [H2C, WEBSOCKET], ids=["h2c", "websocket"])
@pytest.mark.parametrize("chunked", [False, True], ids=["length", "chunked"])
@pytest.mark.parametrize("piece", [1, 7, 10**6])
def test_a_body_behind_an_offer_is_read(server: Server, offer: dict[str, str], chunked: bool, piece: int) -> None:
    """Whole or in pieces, and on the next request of the same connection, with and without an offer."""
    body = json.dumps(example(image_url="data:image/png;base64,AAAA")).encode()
    with connect(server) as connection:
        for again in (offer, {}, offer):
            sent = request(body, again, chunked=chunked)
            for first in range(0, len(sent), piece):
                connection.sendall(sent[first : first + piece])
            status, said = answer(connection)
            assert (status, said["status"]) == (200, "IN_QUEUE")


@pytest.mark.parametrize("version", ["1.0", "1.1"])
@pytest.mark.parametrize("piece", [1, 10**6])
def test_an_offer_on_a_connection_that_ends(server: Server, version: str, piece: int) -> None:
    sent = request(b"no JSON", {**H2C, "Connection": "close, Upgrade, HTTP2-Settings"})
    sent = sent.replace(b"HTTP/1.1", f"HTTP/{version}".encode(), 1)
    started = time.monotonic()
    with connect(server) as connection:
        for first in range(0, len(sent), piece):
            connection.sendall(sent[first : first + piece])
        said = read_all(connection)
    assert said.split()[1] == b"422"
    assert time.monotonic() - started < 8, "not by a time limit"


def test_pipelined_offers_are_answered_in_turn(server: Server) -> None:
    body = json.dumps(example(image_url="data:image/png;base64,AAAA")).encode()
    with connect(server) as connection:
        connection.sendall(request(body, H2C) + request(body, WEBSOCKET, chunked=True))
        assert [answer(connection)[0] for _ in range(2)] == [200, 200]


def test_an_upload_may_look_like_an_offer(server: Server) -> None:
    """Bytes of a body are never read as headers."""
    urls = server.http.post(
        "/rest/storage/upload/initiate", json={"content_type": "image/png", "file_name": "a.png"}
    ).json()
    content = b"\x89PNG\r\n\x1a\n" + request(b"{}", H2C) * 3
    put = server.http.put(urls["upload_url"], content=content, headers=H2C)
    assert put.status_code == 200, put.text
    assert server.http.get(urls["file_url"]).content == content


def test_headers_of_an_offer_are_limited_like_others(server: Server) -> None:
    assert server.http.post(PATH, json={}, headers={**H2C, "x-long": "x" * 17_000}).status_code == 431


def test_connect_is_refused(server: Server) -> None:
    with connect(server) as connection:
        connection.sendall(b"CONNECT example.test:443 HTTP/1.1\r\nHost: example.test:443\r\n\r\n")
        assert connection.recv(65536).split()[1] in {b"400", b"404", b"405"}


def test_curl_that_would_rather_speak_http_2(server: Server, tmp_path: Path) -> None:
    curl = shutil.which("curl")
    assert curl is not None
    (tmp_path / "in.json").write_text(json.dumps(example()))
    command = [curl, "-sS", "--http2", "-d", f"@{tmp_path / 'in.json'}", f"{server.url}{PATH}"]
    said = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout
    assert json.loads(said)["status"] == "IN_QUEUE"


@pytest.mark.parametrize("path", [f"/run/{APP}", f"/queue/{APP}", f"/queue/{APP}?fal_webhook=x"])
@pytest.mark.parametrize("chunked", [False, True], ids=["length", "chunked"])
def test_a_refusal_after_100_continue_is_like_any_other(server: Server, path: str, chunked: bool) -> None:
    sent = request(b"no JSON", {"Expect": "100-continue", "Connection": "close"}, chunked=chunked)
    head, _, body = sent.replace(PATH.encode(), path.encode(), 1).partition(b"\r\n\r\n")
    with connect(server) as connection:
        connection.sendall(head + b"\r\n\r\n")
        if "?" not in path:  # else it is refused without the body
            assert connection.recv(25, socket.MSG_WAITALL) == b"HTTP/1.1 100 Continue\r\n\r\n"
        connection.sendall(body)
        said = read_all(connection)
    assert b"HTTP/1.1 422 " in said
    assert b"\r\nx-fal-request-id: " in said
