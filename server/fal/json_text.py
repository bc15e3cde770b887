"""JSON as clients send it: in any of its encodings, and with half an emoji where a program cut a string."""

import json
import re
from itertools import islice
from typing import Any, Final

from pydantic_core import from_json

_ESCAPE: Final = re.compile(
    rb"\\(?:u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|(u[dD][89a-fA-F][0-9a-fA-F]{2})|\\)"
)
_MOST_ESCAPES: Final = 100_000  # beyond it a lone surrogate stays what it is, and is refused
_ESCAPED: Final = re.compile(rb"\\u[dD][89a-fA-F]")
_ENCODED: Final = re.compile(rb"\xed[\xa0-\xbf].", re.DOTALL)
_ENCODED_PAIR: Final = re.compile(rb"\xed[\xa0-\xaf].\xed[\xb0-\xbf].", re.DOTALL)
# Both as long as what they replace.
_REPLACED_ESCAPE: Final = rb"\ufffd"
_REPLACED: Final = "\ufffd".encode()


def parse_json(body: bytes | bytearray) -> Any:
    """Parse UTF-8, UTF-16 or UTF-32, with or without a byte order mark; lone surrogates become U+FFFD.

    A bytearray is empty afterwards: the text of 30 MB may take 120 MB, and copies of the body would come on top.

    Raises:
        ValueError: not JSON. NaN, Infinity and deep nesting are not.
    """
    content = _taken(body)
    try:
        return from_json(content, allow_inf_nan=False)
    except ValueError:
        encoding = json.detect_encoding(content)
        if encoding == "utf-8" and not _ENCODED.search(content) and not _ESCAPED.search(content):
            raise
        utf8 = bytearray(content if encoding == "utf-8" else _as_utf8(content, encoding))
        del content
    return from_json(_taken(_repaired(utf8)), allow_inf_nan=False)


def _taken(body: bytes | bytearray) -> bytes:
    """What was in it. The parser reads bytes where they are; of a bytearray it makes a copy and keeps that memory."""
    if isinstance(body, bytes):
        return body
    content = bytes(body)
    body.clear()
    return content


def _as_utf8(body: bytes | bytearray, encoding: str) -> bytes:
    """Through UTF-16, whose decoder joins the halves of a pair and replaces what is left alone."""
    utf16 = body.decode(encoding, "surrogatepass").encode("utf-16-le", "surrogatepass")
    return utf16.decode("utf-16-le", "replace").encode()


def _repaired(utf8: bytearray) -> bytearray:
    """Without lone surrogates, be they escapes or encoded like letters."""
    if _ENCODED_PAIR.search(utf8):
        utf8 = bytearray(_ENCODED_PAIR.sub(lambda pair: _as_utf8(pair[0], "utf-8"), utf8))
    for lone in _ENCODED.finditer(utf8):
        utf8[lone.start() : lone.end()] = _REPLACED
    for escape in islice(_ESCAPE.finditer(utf8), _MOST_ESCAPES):
        if escape[1]:
            utf8[escape.start() : escape.end()] = _REPLACED_ESCAPE
    return utf8
