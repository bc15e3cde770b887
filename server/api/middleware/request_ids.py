"""Every response carries `x-fal-request-id`: fal's JS client knows its request by that header alone, and the Python
client repeats a 502, 503 or 504 without it."""

import uuid
from typing import Final

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from server.logs import begin_exchange, end_exchange

REQUEST_ID: Final = "x-fal-request-id"
_SCOPE_KEY: Final = "hunyuan_custom.request_id"


def new_request_id() -> str:
    """As long as fal's, and unguessable."""
    return str(uuid.uuid4())


def request_id_of(scope: Scope) -> str:
    """The id of this HTTP exchange, for logs and error answers; a job's answers carry the job's id instead."""
    made: list[str] = scope[_SCOPE_KEY]  # one list for all copies of the scope; filled when the id is first needed
    if not made:
        made.append(new_request_id())
    return made[0]


class RequestIds:
    """ASGI middleware around all that may answer."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Give the exchange an id, and its response the header unless a route has set one."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        scope[_SCOPE_KEY] = []

        async def send_with_id(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                if REQUEST_ID not in headers:
                    headers[REQUEST_ID] = request_id_of(scope)
            await send(message)

        before = begin_exchange(lambda: request_id_of(scope))
        try:
            await self._app(scope, receive, send_with_id)
        finally:
            end_exchange(before)
