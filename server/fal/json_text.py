"""JSON as clients send it: in any of its encodings, and with half an emoji where a program cut a string."""

import json
import re
from typing import Any, Final

from pydantic_core import from_json

_ESCAPE: Final = re.compile(
    rb"\\(?:u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|(u[dD][89a-fA-F][0-9a-fA-F]{2})|\\)"
)
_MOST_ESCAPES: Final = 100_000  # beyond it a lone surrogate stays what it is, and is refused
_ESCAPED: Final = re.compile(rb"\\u[dD][89a-fA-F]")
_ENCODED: Final = re.compile(rb"\xed[\xa0-\xbf]")


def parse_json(body: bytes | bytearray) -> Any:
    """Parse UTF-8, UTF-16 or UTF-32, with or without a byte order mark; lone surrogates become U+FFFD.

    Raises:
        ValueError: not JSON. NaN, Infinity and deep nesting are not.
    """
    try:
        return from_json(body, allow_inf_nan=False)
    except ValueError:
        encoding = json.detect_encoding(body)
        is_utf8 = encoding == "utf-8" and not _ENCODED.search(body)
        if is_utf8 and not _ESCAPED.search(body):
            raise
    plain = body if is_utf8 else _as_utf8(body, encoding)
    return from_json(_ESCAPE.sub(_whole, plain, count=_MOST_ESCAPES), allow_inf_nan=False)


def _as_utf8(body: bytes | bytearray, encoding: str) -> bytes:
    """Through UTF-16, whose decoder joins the halves of a pair and replaces what is left alone."""
    utf16 = body.decode(encoding, "surrogatepass").encode("utf-16-le", "surrogatepass")
    return utf16.decode("utf-16-le", "replace").encode()


def _whole(escape: re.Match[bytes]) -> bytes:
    return rb"\ufffd" if escape[1] else escape[0]
