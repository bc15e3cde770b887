"""An answer that is sent before the whole body has arrived closes the connection.

A refusal does not wait for 30 GB of body, and uvicorn would keep the connection and read them all. The outermost
middleware, since every other one may refuse.
"""

import asyncio

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_LINGER_S = 2.0  # a refused client gets this long to read the answer before the connection is reset


class EarlyAnswers:
    """ASGI middleware around all others."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the call on; close the connection if it is answered before the end of its body."""
        if scope["type"] == "http" and announces_body(Headers(scope=scope)):
            exchange = _Exchange(receive, send)
            receive, send = exchange.receive, exchange.send
        await self._app(scope, receive, send)


def announces_body(headers: Headers) -> bool:
    """Whether anything follows the headers."""
    return headers.get("content-length", "0") != "0" or "transfer-encoding" in headers


class _Exchange:
    """One request and its answer."""

    def __init__(self, receive: Receive, send: Send) -> None:
        self._receive = receive
        self._send = send
        self._body_is_complete = False

    async def receive(self) -> Message:
        """Pass a part of the body on."""
        message = await self._receive()
        self._body_is_complete = message["type"] != "http.request" or not message.get("more_body", False)
        return message

    async def send(self, message: Message) -> None:
        """Pass a part of the answer on; the last one of an early answer waits a moment for its reader."""
        if self._body_is_complete:
            await self._send(message)
        elif message["type"] == "http.response.start":
            MutableHeaders(scope=message)["connection"] = "close"
            await self._send(message)
        elif message.get("more_body", False):
            await self._send(message)
        else:
            await self._send({**message, "more_body": True})
            await self._discard()
            await self._send({"type": "http.response.body", "body": b""})

    async def _discard(self) -> None:
        """Read on for a moment, so that the reset that follows does not overtake the answer."""
        try:
            async with asyncio.timeout(_LINGER_S):
                while not self._body_is_complete:
                    await self.receive()
        except TimeoutError:
            return
