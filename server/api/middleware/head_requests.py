"""HEAD wherever GET is: the route answers as to a GET, and the answer ends where its body would begin.

The innermost middleware, so that all others know what was asked. Health checks (`wget --spider`) and link checkers
send HEAD.
"""

from typing import Final

from starlette.types import ASGIApp, Message, Receive, Scope, Send

_SCOPE_KEY: Final = "hunyuan_custom.head"


class HeadRequests:
    """ASGI middleware that turns HEAD into GET."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the call on; of the answer to a HEAD nothing is sent but its headers."""
        if scope["type"] != "http" or scope["method"] != "HEAD":
            await self._app(scope, receive, send)
            return

        async def send_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                await send(message)
                return
            await send({"type": "http.response.body", "body": b""})
            if message.get("more_body", False):  # a video, or events without end: nothing more is read for it
                raise _HeadersAreSent

        try:
            await self._app({**scope, "method": "GET", _SCOPE_KEY: True}, receive, send_headers)
        except _HeadersAreSent:
            return


class _HeadersAreSent(Exception):
    """Ends a route that goes on with its body."""


def asked_method(scope: Scope) -> str:
    """HEAD or the method of the route: links to a bucket are signed for one of them."""
    return "HEAD" if _SCOPE_KEY in scope else str(scope["method"])
