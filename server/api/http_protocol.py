"""uvicorn's HTTP protocol with the limits it lacks: the size of the headers, the time they may take, and the time that
an answer may wait for its reader.

httptools collects headers of any size (64 MB were accepted) for as long as the client likes; both are refused here
before anything is parsed into memory. `middleware/body_limits.py` limits bodies, but it never sees the extensions and
trailers of a chunked one, which may have any size. What uvicorn would answer in plain text by itself (no HTTP, too many
connections) has our form: JSON and `x-fal-request-id`.
"""

import asyncio
import json
from http import HTTPStatus
from typing import Any, ClassVar, Final

import httptools
from starlette.types import Receive, Scope, Send
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from server.api.error_responses import to_response
from server.api.middleware.request_ids import REQUEST_ID, RequestIds, new_request_id
from server.errors import BadRequest, HeadersTooLarge, Overloaded, RequestError
from server.settings import ApiSettings

_OFFER: Final = {b"upgrade", b"http2-settings"}  # headers, and options of the Connection header


class _Parser(httptools.HttpRequestParser):
    """Reads on where a client offers an upgrade: httptools takes what follows the headers for another protocol.

    This server takes no upgrade, so the offer is ignored and the body is a body (RFC 9110, 7.8): the same headers are
    read again without it. Java's HttpClient and `curl --http2` make such an offer with each first request.
    """

    def __init__(self, protocol: "LimitedHttpProtocol") -> None:
        super().__init__(protocol)
        self._protocol = protocol
        self.set_dangerous_leniencies(lenient_data_after_close=True)  # as uvicorn does

    def feed_data(self, data: bytes) -> None:  # type: ignore[override] # asyncio hands over bytes
        parser = self
        while True:
            try:
                super(_Parser, parser).feed_data(data)
            except httptools.HttpParserUpgrade as offer:
                if not parser.offers_upgrade():
                    raise
                data = self._protocol.head_without_upgrade() + data[offer.args[0] :]
                # This one has seen its last request if that was of HTTP 1.0 or said `close`.
                parser = self._protocol.parser = _Parser(self._protocol)
            else:
                return

    def offers_upgrade(self) -> bool:
        """Whether the request that is read could go on without the upgrade; CONNECT could not."""
        return bool(self.should_upgrade()) and self.get_method() != b"CONNECT"


class LimitedHttpProtocol(HttpToolsProtocol):
    """One connection. Use a subclass made by `limited_protocol`: uvicorn creates instances by itself."""

    max_connections: ClassVar[int]
    max_header_bytes: ClassVar[int]
    header_timeout_s: ClassVar[float]
    write_timeout_s: ClassVar[float]

    parser: _Parser

    _reading_headers = True
    _header_bytes = 0
    _bytes_beside_body = 0  # since the last piece of a body
    _refusal: RequestError | None = None
    _overdue: asyncio.TimerHandle | None = None
    _unread: asyncio.TimerHandle | None = None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.parser = _Parser(self)

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._arm()

    def connection_lost(self, exc: Exception | None) -> None:
        self._disarm()
        self.resume_writing()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        """The reader is behind: more is written when it has caught up, within a time limit."""
        self._unread = self.loop.call_later(self.write_timeout_s, self.transport.abort)
        super().pause_writing()

    def resume_writing(self) -> None:
        if self._unread is not None:
            self._unread.cancel()
            self._unread = None
        super().resume_writing()

    def data_received(self, data: bytes) -> None:
        if self._reading_headers:
            self._header_bytes += len(data)
        else:
            self._bytes_beside_body += len(data)
        super().data_received(data)
        idle = self._reading_headers and (self.cycle is None or self.cycle.response_complete)
        if idle and self._overdue is None:
            self._arm()  # uvicorn's own timer ends with any byte, also with one that begins no request
        # Complete headers were measured when they ended; `data` may hold the beginning of a body as well.
        if self._reading_headers and self._header_bytes > self.max_header_bytes and not self.transport.is_closing():
            self._refusal = HeadersTooLarge()
            self.send_400_response("")
        if not self._reading_headers and self._bytes_beside_body > self.max_header_bytes:
            self.transport.close()  # without an answer: one may be under way

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._reading_headers, self._header_bytes = True, 0
        self._arm()

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._reading_headers:  # trailers are not taken for headers
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        if self.parser.offers_upgrade():
            return  # they come again
        self._disarm()
        self._reading_headers, self._bytes_beside_body = False, 0
        if len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers) > self.max_header_bytes:
            self._refusal = HeadersTooLarge()
            raise self._refusal  # the parser stops and `data_received` answers with `send_400_response`
        if len(self.connections) > self.max_connections:
            self.app = _overloaded  # for this connection, which ends with the answer
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self._bytes_beside_body = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        if self.parser.offers_upgrade():
            return
        super().on_message_complete()
        self._reading_headers, self._header_bytes = True, 0

    def send_400_response(self, msg: str) -> None:
        """The answer to what is not HTTP or exceeds a limit; it closes the connection."""
        refused = (self._refusal or BadRequest(msg)).response()
        body = json.dumps(refused.body)
        headers = {
            "content-type": "application/json",
            "content-length": str(len(body)),
            "connection": "close",
            REQUEST_ID: new_request_id(),
            **refused.headers,
        }
        lines = [f"HTTP/1.1 {refused.status} {HTTPStatus(refused.status).phrase}"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        self.transport.write("\r\n".join([*lines, "", body]).encode("ascii"))
        self.transport.close()

    def head_without_upgrade(self) -> bytes:
        """The request line and headers that were just read, less what offers an upgrade."""
        lines = [b"%s %s HTTP/%s" % (self.parser.get_method(), self.url, self.parser.get_http_version().encode())]
        for name, value in self.headers:
            if name == b"connection":
                kept = [option for option in value.split(b",") if option.strip().lower() not in _OFFER]
                lines += [b"%s: %s" % (name, b",".join(kept))] if kept else []
            elif name not in _OFFER:
                lines.append(b"%s: %s" % (name, value))
        return b"\r\n".join([*lines, b"", b""])

    def _arm(self) -> None:
        self._disarm()
        self._overdue = self.loop.call_later(self.header_timeout_s, self.transport.close)

    def _disarm(self) -> None:
        if self._overdue is not None:
            self._overdue.cancel()
            self._overdue = None


def limited_protocol(settings: ApiSettings) -> type[asyncio.Protocol]:
    """The protocol class for `uvicorn.Config(http=...)`."""
    names = ("max_connections", "max_header_bytes", "header_timeout_s", "write_timeout_s")
    limits = {name: getattr(settings, name) for name in names}
    return type("LimitedHttpProtocol", (LimitedHttpProtocol,), limits)


async def _refuse(scope: Scope, receive: Receive, send: Send) -> None:
    await to_response(Overloaded(), {"connection": "close"})(scope, receive, send)


_overloaded = RequestIds(_refuse)
