"""JSON as clients send it: in any of its encodings, and with half an emoji where a program cut a string."""

import json
import re
from typing import Any, Final

from pydantic_core import from_json

_ESCAPE: Final = re.compile(
    rb"\\(?:u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|(u[dD][89a-fA-F][0-9a-fA-F]{2})|.)", re.DOTALL
)
_MOST_ESCAPES: Final = 1_000_000  # beyond it a lone surrogate stays what it is, and is refused
_SURROGATE: Final = re.compile(rb"\\u[dD][89a-fA-F]|\xed[\xa0-\xbf]")


def parse_json(body: bytes) -> Any:
    """Parse UTF-8, UTF-16 or UTF-32, with or without a byte order mark; lone surrogates become U+FFFD.

    Raises:
        ValueError: not JSON. NaN, Infinity and deep nesting are not.
    """
    try:
        return from_json(body, allow_inf_nan=False)
    except ValueError:
        encoding = json.detect_encoding(body)
        if encoding == "utf-8" and not _SURROGATE.search(body):
            raise
    text = body.decode(encoding, "surrogatepass").encode("utf-16-le", "surrogatepass")
    plain = text.decode("utf-16-le", "replace").encode()
    return from_json(_ESCAPE.sub(_whole, plain, count=_MOST_ESCAPES), allow_inf_nan=False)


def _whole(escape: re.Match[bytes]) -> bytes:
    return rb"\ufffd" if escape[1] else escape[0]
