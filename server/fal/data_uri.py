"""`data:` URIs as fal's clients make them with `encode_file` and `encode_image`."""

import base64

from server.errors import FileTooLarge, ImageLoadError, UnsupportedImageFormat

PREFIX = "data:"
_TYPES = ("image/png", "image/jpeg", "image/jpg", "image/webp")


def decode_data_uri(uri: str, *, max_bytes: int) -> bytes:
    """The bytes of `data:image/(png|jpeg|webp);base64,...`, strictly decoded.

    Raises:
        FileTooLarge: judged by the length of the text, before anything is decoded.
        UnsupportedImageFormat: another media type.
        ImageLoadError: not base64, or not a data URI at all.
    """
    header, comma, payload = uri.partition(",")
    media_type, _, encoding = header[len(PREFIX) :].partition(";")
    if not comma or encoding.strip().lower() != "base64":
        raise ImageLoadError
    if media_type.strip().lower() not in _TYPES:
        raise UnsupportedImageFormat
    if len(payload) * 3 // 4 > max_bytes + 2:
        raise FileTooLarge(ctx={"max_size": max_bytes})
    try:
        content = base64.b64decode(payload, validate=True)
    except ValueError:  # binascii.Error among them; letters beyond ASCII are another one
        raise ImageLoadError from None
    if not content:
        raise ImageLoadError
    return content
