"""`data:` URIs as fal's clients, browsers and programs make them."""

import base64
from typing import Final
from urllib.parse import unquote_to_bytes

from server.errors import FileTooLarge, ImageLoadError

PREFIX: Final = "data:"

_WHITESPACE: Final = b" \t\r\n\f\v"
_PIECE: Final = 65536  # at a time: unquoting makes an object of every percent sign


def is_data_uri(url: str) -> bool:
    """Whether it is one; the scheme may be in any case."""
    return url[: len(PREFIX)].lower() == PREFIX


def decode_data_uri(uri: str, *, max_bytes: int) -> bytes:
    """The bytes. The media type and its parameters mean nothing: the content decides, as it does for uploads.

    Percent signs are decoded, whitespace in base64 is dropped, and its padding may be missing, as in browsers.

    Raises:
        FileTooLarge: judged before base64 is decoded.
        ImageLoadError: not base64 although it is said to be, nothing at all, or not a data URI.
    """
    try:
        # Bytes: a copy of a text with one letter beyond ASCII has four bytes a letter.
        content = uri.encode()
        header, comma = uri[: max(uri.find(","), 0)], b"," in content
        if len(content) - len(uri) > len(header.encode()) - len(header):
            raise ImageLoadError  # such letters behind the comma are neither base64 nor bytes of an image
        is_base64 = "base64" in {part.strip().lower() for part in header[len(PREFIX) :].split(";")}
        payload = _unquoted(content[len(header.encode()) + 1 :].strip())
        if is_base64:
            payload = payload.translate(None, _WHITESPACE)
            if len(payload) * 3 // 4 > max_bytes + 2:
                raise FileTooLarge(ctx={"max_size": max_bytes})
            payload = base64.b64decode(payload + b"=" * (-len(payload) % 4), validate=True)
    except ValueError:  # binascii.Error and lone surrogates among them
        raise ImageLoadError from None
    if len(payload) > max_bytes:
        raise FileTooLarge(ctx={"max_size": max_bytes})
    if not comma or not payload:
        raise ImageLoadError
    return payload


def _unquoted(text: bytes) -> bytes:
    if b"%" not in text:
        return text
    unquoted, at = bytearray(), 0
    while at < len(text):
        end = at + _PIECE
        cut = text.rfind(b"%", max(end - 2, at + 1), end)  # not between a sign and its digits
        end = cut if cut > 0 else end
        unquoted += unquote_to_bytes(text[at:end])
        at = end
    return bytes(unquoted)
