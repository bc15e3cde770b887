"""Spellings of a data: URI that clients send; all of them stand for the same bytes."""

import base64
from collections.abc import Callable
from functools import partial
from urllib.parse import quote

_TYPES = (
    "", "image/png", "IMAGE/PNG", "image/jpeg", "image/gif", "application/octet-stream", "None", "null", "undefined",
    "image/*", "image/pjpeg", "text/html", "image/png;name=a b.png", "image/png;charset=utf-8", "image/png ",
)  # fmt: skip


def _plain(content: bytes) -> str:
    return base64.b64encode(content).decode()


def _typed(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{_plain(content)}"


SPELLINGS: dict[str, Callable[[bytes], str]] = {
    **{f"type {kind!r}": partial(_typed, kind) for kind in _TYPES},
    "wrapped": lambda content: f"data:image/png;base64,{base64.encodebytes(content).decode()}",
    "wrapped, CRLF": lambda content: f"data:image/png;base64,{base64.encodebytes(content).decode()}".replace(
        "\n", "\r\n"
    ),
    "a space after the comma": lambda content: f"data:image/png;base64, {_plain(content)}",
    "a newline at the end": lambda content: f"data:image/png;base64,{_plain(content)}\n",
    "whitespace in front": lambda content: f" \n\tdata:image/png;base64,{_plain(content)}",
    "base64, percent-encoded": lambda content: f"data:image/png;base64,{quote(_plain(content), safe='')}",
    "wrapped, percent-encoded": lambda content: (
        f"data:image/png;base64,{quote(base64.encodebytes(content).decode(), safe='')}"
    ),
    "percent-encoded": lambda content: f"data:image/png,{quote(content, safe='')}",
    "percent-encoded, without a type": lambda content: f"data:,{quote(content, safe='')}",
    "the scheme in capitals": lambda content: f"DATA:image/png;BASE64,{_plain(content)}",
    "another case": lambda content: f"Data:image/png;Base64,{_plain(content)}",
    "a parameter after base64": lambda content: f"data:image/png;base64;name=x,{_plain(content)}",
    "no padding": lambda content: f"data:image/png;base64,{_plain(content).rstrip('=')}",
}
