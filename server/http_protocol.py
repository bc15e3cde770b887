"""uvicorn's HTTP protocol with the limits it lacks: the size of the headers, and the time they may take.

httptools collects headers of any size (64 MB were accepted) for as long as the client likes; both are refused here
before anything is parsed into memory. Bodies are the business of `request_guard.py`.
"""

import asyncio
from typing import ClassVar

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from server.errors import HeadersTooLarge, RequestError
from server.settings import ApiSettings


class LimitedHttpProtocol(HttpToolsProtocol):
    """One connection. Use a subclass made by `limited_protocol`: uvicorn creates instances by itself."""

    max_header_bytes: ClassVar[int]
    header_timeout_s: ClassVar[float]

    _reading_headers = True
    _header_bytes = 0
    _refusal: RequestError | None = None
    _overdue: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._arm()

    def connection_lost(self, exc: Exception | None) -> None:
        self._disarm()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._reading_headers:
            self._header_bytes += len(data)
        super().data_received(data)
        # Complete headers were measured when they ended; `data` may hold the beginning of a body as well.
        if self._reading_headers and self._header_bytes > self.max_header_bytes and not self.transport.is_closing():
            self._refusal = HeadersTooLarge()
            self.send_400_response("")

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._reading_headers, self._header_bytes = True, 0
        self._arm()

    def on_headers_complete(self) -> None:
        self._disarm()
        self._reading_headers = False
        if len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers) > self.max_header_bytes:
            self._refusal = HeadersTooLarge()
            raise self._refusal  # the parser stops and `data_received` answers with `send_400_response`
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        super().on_message_complete()
        self._reading_headers, self._header_bytes = True, 0

    def send_400_response(self, msg: str) -> None:
        """uvicorn's answer to what is no HTTP; ours where a limit was passed."""
        if self._refusal is None:
            super().send_400_response(msg)
            return
        text = str(self._refusal)
        head = f"HTTP/1.1 {self._refusal.status} Request Header Fields Too Large\r\n"
        body = f'{{"detail":"{text}","error_type":"{self._refusal.error_type}"}}'
        self.transport.write(
            f"{head}content-type: application/json\r\nx-fal-error-type: {self._refusal.error_type}\r\n"
            f"content-length: {len(body)}\r\nconnection: close\r\n\r\n{body}".encode()
        )
        self.transport.close()

    def _arm(self) -> None:
        self._disarm()
        self._overdue = self.loop.call_later(self.header_timeout_s, self.transport.close)

    def _disarm(self) -> None:
        if self._overdue is not None:
            self._overdue.cancel()
            self._overdue = None


def limited_protocol(settings: ApiSettings) -> type[asyncio.Protocol]:
    """The protocol class for `uvicorn.Config(http=...)`."""
    limits = {"max_header_bytes": settings.max_header_bytes, "header_timeout_s": settings.header_timeout_s}
    return type("LimitedHttpProtocol", (LimitedHttpProtocol,), limits)
