"""What a PNG says about its colours beside an ICC profile."""

from typing import Final

from server.untrusted.cicp import colour_of
from server.untrusted.colour import BT709, D65, Colour, Curve, srgb_light
from server.untrusted.png_chunks import checksum, chunks

_LENGTHS: Final = {b"cICP": 4, b"sRGB": 1, b"gAMA": 4, b"cHRM": 32}
_UNIT: Final = 100_000  # of gAMA and cHRM


def png_colour(content: bytes) -> Colour | None:
    """In the order of the specification (third edition): cICP, then (ICC and) sRGB, then gAMA and cHRM.

    A chunk that is damaged or makes no sense is ignored; the first of a kind counts.
    """
    found: dict[bytes, bytes] = {}
    for kind, body, crc in chunks(content):
        if kind == b"IDAT":
            break
        if len(body) == _LENGTHS.get(kind) and crc == checksum(kind, body):
            found.setdefault(kind, body)
    named = _by_code_points(found.get(b"cICP", b""))
    if named is not None or b"sRGB" in found:
        return named
    white, *primaries = _chromaticities(found[b"cHRM"]) if b"cHRM" in found else (D65, *BT709)
    gamma = int.from_bytes(found.get(b"gAMA", b""), "big") / _UNIT
    return Colour(primaries=tuple(primaries), white=white, curve=_relative_to_srgb(gamma) if gamma else srgb_light)


def _by_code_points(body: bytes) -> Colour | None:
    """cICP, if it is for RGB in the full range, as samples of a PNG nearly always are."""
    return colour_of(body[0], body[1], before_icc=True) if body[2:] == b"\0\1" else None


def _chromaticities(body: bytes) -> list[tuple[float, float]]:
    """x and y of white, red, green and blue."""
    values = [int.from_bytes(body[at : at + 4], "big") / _UNIT for at in range(0, 32, 4)]
    return list(zip(values[::2], values[1::2], strict=True))


def _relative_to_srgb(gamma: float) -> Curve:
    """The curve of gAMA as browsers apply it: in relation to 1/2.2, by which writers mean the curve of sRGB."""
    exponent = 1 / (2.2 * gamma)
    return lambda sample: srgb_light(sample**exponent)
