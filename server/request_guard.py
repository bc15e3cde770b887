"""Bodies are bounded in size, time and memory before a route sees them: uvicorn itself has none of these limits.

A body that is too long is 413, one that does not arrive in time 400. Never 408, which fal's client would retry.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable

from fastapi.responses import JSONResponse
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from server.errors import BodyTooLarge, BodyTooSlow, Overloaded, RequestError
from server.settings import ApiSettings

_SMALL_BYTES = 64 * 2**10  # bodies up to this size are not counted: uvicorn buffers as much for every connection
_LINGER_S = 2.0  # a refused sender gets this long to read the answer before the connection is reset


class RequestGuard:
    """ASGI middleware. Stands behind `Doors`, so that it sees canonical paths."""

    def __init__(self, app: ASGIApp, settings: ApiSettings) -> None:
        self._app = app
        self._settings = settings
        self._memory = ByteBudget(settings.body_memory_bytes)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the call on with a body that keeps to the limits."""
        headers = Headers(scope=scope) if scope["type"] == "http" else Headers()
        declared = headers.get("content-length", "")
        if declared in {"", "0"} and "transfer-encoding" not in headers:
            await self._app(scope, receive, send)
            return
        limit = self._settings.max_body_bytes
        length = int(declared) if declared.isdigit() else limit
        body = _Body(receive, self._settings)
        answer = _Answer(send, body)
        if length > limit:
            await _refuse(BodyTooLarge(), scope, answer)
            return
        # Uploads go to disk as they arrive and need no memory.
        reserved = 0 if length <= _SMALL_BYTES or scope["path"].startswith("/cdn/") else length
        try:
            await self._memory.take(reserved, timeout_s=self._settings.body_timeout_s)
        except TimeoutError:
            await _refuse(Overloaded(retry_after_s=5), scope, answer)
            return
        body.on_consumed = lambda: self._memory.give_back(reserved)
        try:
            await self._app(scope, body.receive, answer.send)
        finally:
            body.consumed()


class _Body:
    """The receiving side of one request."""

    def __init__(self, receive: Receive, settings: ApiSettings) -> None:
        self._receive = receive
        self._limit = settings.max_body_bytes
        self._idle_s = settings.body_idle_s
        self._deadline = time.monotonic() + settings.body_timeout_s
        self._received = 0
        self.complete = False
        self.on_consumed: Callable[[], None] = _nothing

    async def receive(self) -> Message:
        """The next part of the body.

        Raises:
            BodyTooLarge, BodyTooSlow
        """
        if self.complete:
            # Whoever asks again (for the end of the connection) has done with the body: a sync run waits for minutes.
            self.consumed()
            return await self._receive()
        try:
            async with asyncio.timeout(max(0.0, min(self._idle_s, self._deadline - time.monotonic()))):
                message = await self._receive()
        except TimeoutError:
            raise BodyTooSlow from None
        self._received += len(message.get("body", b""))
        if self._received > self._limit:
            raise BodyTooLarge
        self.complete = message["type"] != "http.request" or not message.get("more_body", False)
        return message

    def consumed(self) -> None:
        """The body's memory is free again."""
        done, self.on_consumed = self.on_consumed, _nothing
        done()

    async def discard(self) -> None:
        """Read on for a moment, so that the reset that follows does not overtake the answer."""
        try:
            async with asyncio.timeout(_LINGER_S):
                while not self.complete:
                    message = await self._receive()
                    self.complete = message["type"] != "http.request" or not message.get("more_body", False)
        except TimeoutError:
            self.complete = True


class _Answer:
    """The sending side: an answer that comes before the whole body ends the connection after it."""

    def __init__(self, send: Send, body: _Body) -> None:
        self._send = send
        self._body = body

    async def send(self, message: Message) -> None:
        """Pass a message on."""
        self._body.consumed()  # whoever answers has done with it
        if self._body.complete:
            await self._send(message)
        elif message["type"] == "http.response.start":
            MutableHeaders(scope=message)["connection"] = "close"
            await self._send(message)
        elif message.get("more_body", False):
            await self._send(message)
        else:
            await self._send({**message, "more_body": True})
            await self._body.discard()
            await self._send({"type": "http.response.body", "body": b""})


class ByteBudget:
    """Bytes that may be in memory at once; whoever finds too few left waits in line."""

    def __init__(self, total: int) -> None:
        self._total = total
        self._free = total
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()

    async def take(self, amount: int, *, timeout_s: float) -> None:
        """Wait for that many bytes.

        Raises:
            TimeoutError: they did not become free in time.
        """
        amount = min(amount, self._total)
        if amount <= self._free and (amount == 0 or not self._waiting):
            self._free -= amount
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((amount, turn))
        try:
            async with asyncio.timeout(timeout_s):
                await turn
        except BaseException:
            if turn.done() and not turn.cancelled():  # it came in the same moment
                self.give_back(amount)
            elif (amount, turn) in self._waiting:
                self._waiting.remove((amount, turn))
            raise

    def give_back(self, amount: int) -> None:
        """Bytes are free again; the first in line may go on."""
        self._free += min(amount, self._total)
        while self._waiting and (self._waiting[0][1].done() or self._waiting[0][0] <= self._free):
            wanted, turn = self._waiting.popleft()
            if not turn.done():
                self._free -= wanted
                turn.set_result(None)


def _nothing() -> None:
    """The body took no memory, or gave it back."""


async def _refuse(error: RequestError, scope: Scope, answer: _Answer) -> None:
    response = error.response()

    async def no_body() -> Message:
        raise RuntimeError("a refusal reads no body")

    await JSONResponse(response.body, response.status, response.headers)(scope, no_body, answer.send)
