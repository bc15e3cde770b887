"""Calls of a server: what it is shown, and what becomes of a download that ends too early."""

import threading
from collections.abc import Iterator
from email.message import Message
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from server.generate.server_calls import ServerAway, ServerCalls


class _Site(BaseHTTPRequestHandler):
    """Ten bytes are announced at /short, and three come."""

    shown: Message

    def do_GET(self) -> None:
        type(self).shown = self.headers
        self.send_response(200)
        self.send_header("Content-Length", "10" if self.path == "/short" else "3")
        self.end_headers()
        self.wfile.write(b"mp4")

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def site() -> Iterator[str]:
    with HTTPServer(("127.0.0.1", 0), _Site) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.fixture
def calls(site: str) -> Iterator[ServerCalls]:
    with ServerCalls(site, "id:secret") as made:
        yield made


def test_a_videos_url_is_not_shown_the_key(calls: ServerCalls, site: str) -> None:
    with calls.download(f"{site}/video.mp4") as answer:
        assert answer.read() == b"mp4"
    assert "authorization" not in _Site.shown


@pytest.mark.parametrize("url", ["http://127.0.0.1:1/x.mp4", "{site}/short", "http://x:y/x.mp4", "nothing"])
def test_a_download_that_cannot_be_is_one_line(calls: ServerCalls, site: str, url: str) -> None:
    with pytest.raises(ServerAway, match="cannot be downloaded"), calls.download(url.format(site=site)) as answer:
        answer.read()
