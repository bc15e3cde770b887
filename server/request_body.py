"""Read a request's body without trusting its size: uvicorn has no limit of its own."""

from fastapi import Request

from server.errors import BodyTooLarge


async def read_body(request: Request, *, limit: int) -> bytes:
    """The whole body, at most `limit` bytes.

    Raises:
        BodyTooLarge: by the declared length, or while counting what arrives.
    """
    declared = request.headers.get("content-length", "")
    if declared.isdigit() and int(declared) > limit:
        raise BodyTooLarge
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > limit:
            raise BodyTooLarge
    return bytes(body)
