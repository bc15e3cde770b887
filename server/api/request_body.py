"""Read a request's body without trusting its size: the middleware bounds all bodies, routes may ask for less."""

from fastapi import Request
from starlette.requests import ClientDisconnect

from server.errors import BadRequest, BodyTooLarge


async def read_body(request: Request, *, limit: int) -> bytearray:
    """The whole body, at most `limit` bytes; not copied, since there may be 30 MB of it.

    Raises:
        BadRequest: the client hung up.
        BodyTooLarge: by the declared length, or while counting what arrives.
    """
    declared = request.headers.get("content-length", "")
    if declared.isdigit() and int(declared) > limit:
        raise BodyTooLarge
    body = bytearray()
    try:
        async for chunk in request.stream():
            body += chunk
            if len(body) > limit:
                raise BodyTooLarge
    except ClientDisconnect:
        raise BadRequest("The body ended early") from None
    return body
