"""Bodies are bounded in size, time and memory before a route sees them: uvicorn itself has none of these limits.

A body that is too long is 413, one that does not arrive in time 400. Never 408, which fal's client would retry.
`early_answers.py` ends the connection of a body that was refused.
"""

import asyncio
import time
from collections.abc import Callable

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from server.api.access.key_ring import KeyRing
from server.api.error_responses import to_response
from server.api.middleware.body_memory import BodyMemory
from server.api.middleware.early_answers import announces_body
from server.api.middleware.host_rewrite import came_via_proxy
from server.errors import BodyTooLarge, BodyTooSlow, Overloaded, RequestError, Unauthorized
from server.settings import ApiSettings

_SMALL_BYTES = 64 * 2**10  # bodies up to this size are not counted: uvicorn buffers as much for every connection


class BodyLimits:
    """ASGI middleware. Stands behind `HostRewrite`, so that it sees canonical paths."""

    def __init__(self, app: ASGIApp, settings: ApiSettings, keys: KeyRing) -> None:
        self._app = app
        self._settings = settings
        self._keys = keys
        self._memory = BodyMemory(settings.body_memory_bytes, settings.body_memory_per_owner_bytes)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the call on with a body that keeps to the limits."""
        headers = Headers(scope=scope) if scope["type"] == "http" else Headers()
        if not announces_body(headers):
            await self._app(scope, receive, send)
            return
        declared = headers.get("content-length", "")
        limit = self._settings.max_body_bytes
        length = int(declared) if declared.isdigit() else limit
        if length > limit:
            await _refuse(BodyTooLarge(), scope, send)
            return
        # Uploads go to disk as they arrive and need no memory.
        needed = 0 if length <= _SMALL_BYTES or scope["path"].startswith("/cdn/") else length
        owner = self._owner(headers, scope) if needed else ""
        try:
            taken = await self._memory.take(owner, needed, timeout_s=self._settings.body_timeout_s)
        except TimeoutError:
            await _refuse(Overloaded(retry_after_s=5), scope, send)
            return
        body = _Body(receive, self._settings)  # its time begins now: until here the sender was kept waiting
        body.on_consumed = lambda: self._memory.give_back(owner, taken)

        async def send_and_free(message: Message) -> None:
            body.consumed()  # a route that answers does not need the body any more
            await send(message)

        try:
            await self._app(scope, body.receive, send_and_free)
        finally:
            body.consumed()

    def _owner(self, headers: Headers, scope: Scope) -> str:
        """Whose share of the memory it is. Unknown callers have one together, until the route refuses them."""
        try:
            return self._keys.caller(headers.get("authorization"), via_proxy=came_via_proxy(scope))
        except Unauthorized:
            return ""


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
            # A route that asks again waits for the end of the connection, a sync run for minutes: it has the body.
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


def _nothing() -> None:
    """The body took no memory, or gave it back."""


async def _refuse(error: RequestError, scope: Scope, send: Send) -> None:
    async def no_body() -> Message:
        raise RuntimeError("a refusal reads no body")

    await to_response(error)(scope, no_body, send)
