"""The playground's status stream: behind a network that falls silent without saying so, and in a tab that is hidden."""

import socket
import socketserver
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Final

import pytest

from tests.harness.chromium import Page
from tests.harness.live_server import Server, example, until

# Waits of half a minute and more end 20 times as soon; the server's stream says something more often than that.
IMPATIENT: Final = """
const wait = window.setTimeout;
window.setTimeout = (act, ms, ...more) => wait(act, ms >= 30_000 ? ms / 20 : ms, ...more);"""
_PIECE: Final = 2**16
BLOCKS: Final = "(document.querySelector('.log pre')?.textContent.match(/(?<=block )\\d+/g) ?? []).map(Number)"


class Relay(socketserver.ThreadingTCPServer):
    """Passes connections on to a server, but for the answers on the `silent` ones of the status streams: those count
    from 1 in the order in which they are asked for."""

    daemon_threads = True
    block_on_close = False

    def __init__(self, port: int) -> None:
        super().__init__(("127.0.0.1", 0), _Connection)
        self.behind = ("127.0.0.1", port)
        self.streams = 0
        self.open: set[int] = set()
        self.silent: set[int] = set()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class _Connection(socketserver.BaseRequestHandler):
    server: Relay
    stream = 0  # the number of the one that it carries

    def handle(self) -> None:
        with socket.create_connection(self.server.behind) as behind:
            answers = threading.Thread(target=self._bring_answers, args=(behind,))
            answers.start()
            with suppress(OSError):  # either side may close at any time
                while asked := self.request.recv(_PIECE):
                    if b"/status/stream" in asked:
                        self.server.streams += 1
                        self.stream = self.server.streams
                        self.server.open.add(self.stream)
                    behind.sendall(asked)
            with suppress(OSError):
                behind.shutdown(socket.SHUT_RDWR)
            self.server.open.discard(self.stream)
            answers.join()

    def _bring_answers(self, behind: socket.socket) -> None:
        with suppress(OSError):
            while answer := behind.recv(_PIECE):
                if self.stream not in self.server.silent:
                    self.request.sendall(answer)
            self.request.shutdown(socket.SHUT_RDWR)


@pytest.fixture
def relay(server: Server) -> Iterator[Relay]:
    port = server.http.base_url.port
    assert port is not None
    with Relay(port) as relay:
        thread = threading.Thread(target=relay.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield relay
        relay.shutdown()
        thread.join()


@pytest.fixture
def running(server: Server) -> Iterator[str]:
    request_id = server.submit(example(prompt="WORKS_SLOWLY"))
    yield request_id
    server.cancel(request_id)
    server.finish(request_id)


def goes_on(tab: Page) -> None:
    """Wait for more lines of the log; none is missing and none is there twice."""
    seen = len(tab.js(BLOCKS))
    blocks = tab.until(f"{BLOCKS}.length > {seen} + 5 && {BLOCKS}")
    assert blocks == list(range(blocks[0], blocks[0] + len(blocks)))


def test_a_stream_that_falls_silent_is_asked_for_again(relay: Relay, tab: Page, running: str) -> None:
    relay.silent.add(1)
    tab.begin_with(IMPATIENT)
    tab.go(f"{relay.url}/#/{running}")
    goes_on(tab)
    assert relay.streams > 1, "the first one was never answered"
    before = relay.streams
    relay.silent.add(before)
    until(lambda: relay.streams > before, 30)
    goes_on(tab)


def test_a_tab_that_is_hidden_lets_go_of_its_stream(
    relay: Relay, tab: Page, open_tab: Callable[[], Page], running: str
) -> None:
    tab.begin_with(IMPATIENT)
    tab.go(f"{relay.url}/#/{running}")
    goes_on(tab)
    other = open_tab()
    tab.until("document.hidden")
    until(lambda: not relay.open, 30)
    other.close()
    tab.front()
    goes_on(tab)
