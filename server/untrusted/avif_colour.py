"""The colours that an AVIF file names in numbers: its `colr` box of the type `nclx`, which Pillow does not pass on."""

import itertools
from collections.abc import Iterator

from server.untrusted.cicp import colour_of
from server.untrusted.colour import Colour

_FULL = 4  # bytes of version and flags


def avif_colour(content: bytes) -> Colour | None:
    """Of the primary picture; None if it names none, or the boxes are damaged."""
    try:
        meta = next(body for kind, body in _boxes(content) if kind == b"meta")[_FULL:]
        boxes = dict(_boxes(meta))
        parts = dict(_boxes(boxes[b"iprp"]))
        properties = list(_boxes(parts[b"ipco"]))
        wanted = _properties_of(_primary(boxes[b"pitm"]), parts[b"ipma"])
        named = (properties[number - 1] for number in wanted if 0 < number <= len(properties))
        codes = next(body[4:] for kind, body in named if kind == b"colr" and body[:4] == b"nclx")
    except (StopIteration, KeyError, IndexError):
        return None
    return colour_of(int.from_bytes(codes[:2], "big"), int.from_bytes(codes[2:4], "big"))


def _boxes(content: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Kind and body of each box; one that is cut off ends them."""
    at = 0
    while at + 8 <= len(content):
        size, kind, head = int.from_bytes(content[at : at + 4], "big"), content[at + 4 : at + 8], 8
        if size == 1:
            size, head = int.from_bytes(content[at + 8 : at + 16], "big"), 16
        end = at + size if size else len(content)
        if end < at + head or end > len(content):
            return
        yield kind, content[at + head : end]
        at = end


def _primary(body: bytes) -> int:
    return int.from_bytes(body[_FULL:][: 4 if body[0] else 2], "big")


def _properties_of(item: int, body: bytes) -> list[int]:
    """Numbers, from 1, of the properties of an item (`ipma` box)."""
    wide_ids, wide_numbers = body[0] >= 1, body[3] & 1
    at = _FULL + 4
    for _ in itertools.repeat(None, int.from_bytes(body[_FULL:at], "big")):
        length = 4 if wide_ids else 2
        found, count = int.from_bytes(body[at : at + length], "big"), body[at + length]
        at += length + 1
        width = 2 if wide_numbers else 1
        if found == item:
            mask = 0x7FFF if wide_numbers else 0x7F
            return [int.from_bytes(body[at + i * width :][:width], "big") & mask for i in range(count)]
        at += count * width
    return []
