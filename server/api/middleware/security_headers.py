"""Headers that tell browsers to take answers for nothing but their declared type."""

from typing import Final

from starlette.types import ASGIApp, Message, Receive, Scope, Send

_Headers = tuple[tuple[bytes, bytes], ...]

_ALWAYS: Final[_Headers] = ((b"x-content-type-options", b"nosniff"), (b"referrer-policy", b"no-referrer"))
# Our own pages set their own policy; nothing else has a reason to load anything or to be framed.
_NOT_A_PAGE: Final[_Headers] = ((b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),)
_PRIVATE: Final[_Headers] = ((b"cache-control", b"no-store"),)


class SecurityHeaders:
    """ASGI middleware; a header that a route has set stays."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the call on."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                # Plain tuples: this runs for every status poll.
                given = dict(message["headers"])
                kind = given.get(b"content-type", b"")
                wanted = _ALWAYS if kind.startswith(b"text/html") else _ALWAYS + _NOT_A_PAGE
                if kind.startswith(b"application/json"):
                    wanted += _PRIVATE
                message["headers"] = [*message["headers"], *(item for item in wanted if item[0] not in given)]
            await send(message)

        await self._app(scope, receive, send_with_headers)
