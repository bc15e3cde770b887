"""A PNG without what does not matter to its pixels, so that no damaged or huge metadata decides about them."""

import zlib
from collections.abc import Callable, Iterator
from typing import Final

SIGNATURE: Final = b"\x89PNG\r\n\x1a\n"

_LARGEST_PROFILE: Final = 2**20  # bytes; Pillow's limit
_TIFF_MAGIC: Final = (b"II*\0", b"MM\0*")
_GREY, _RGB, _PALETTE = 0, 2, 3  # colour types that may have a tRNS chunk
_CHANNELS: Final = {_RGB: 3, 4: 2, 6: 4}
_INTERLACED: Final = [(0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)]
_PIECE: Final = 2**20
_TO_8_BITS: Final = {1: 255, 2: 85, 4: 17, 8: 1}  # factors of grey values


def without_metadata(content: bytes) -> bytes:
    """The critical chunks and those of transparency, colour profile and rotation that are sound.

    Animation chunks go too, which leaves the picture that a viewer without animations shows. An end that is missing is
    added: whether pixels are missing is for the decoder to say.
    """
    kept = [SIGNATURE]
    seen: set[bytes] = set()
    header = b""
    for kind, body, crc in chunks(content):
        if kind == b"IHDR":
            header = body
        if kind in _ANCILLARY:
            sound = kind not in seen and crc == checksum(kind, body)
            seen.add(kind)
            rewritten = _ANCILLARY[kind](body, header) if sound else None
            if rewritten is not None:
                kept.append(_chunk(kind, rewritten, checksum(kind, rewritten)))
        elif not kind[0] & 0x20:  # a capital first letter: critical
            kept.append(_chunk(kind, body, crc))
        if kind == b"IEND":
            break
    else:
        kept.append(_chunk(b"IEND", b"", checksum(b"IEND", b"")))
    return b"".join(kept)


def has_all_rows(content: bytes) -> bool:
    """Whether the packed pixels are as many as the header says; Pillow leaves rows black that are missing.

    Unpacks them once more, so the size should be checked before.
    """
    header, missing = b"", 0
    unpacking = zlib.decompressobj()
    for kind, body, _ in chunks(content):
        if kind == b"IHDR" and len(body) == 13 and not header:
            header, missing = body, _unpacked_bytes(body)
        packed = body if kind == b"IDAT" else b""
        while packed and missing > 0 and not unpacking.eof:
            missing -= len(unpacking.decompress(packed, _PIECE))
            packed = unpacking.unconsumed_tail
    return missing <= 0


def chunks(content: bytes) -> Iterator[tuple[bytes, bytes, int]]:
    """Kind, body and checksum; the last one may be cut off."""
    at = len(SIGNATURE)
    while at + 8 <= len(content):
        length, kind = int.from_bytes(content[at : at + 4], "big"), content[at + 4 : at + 8]
        body, end = content[at + 8 : at + 8 + length], at + 8 + length
        yield kind, body, int.from_bytes(content[end : end + 4], "big")
        at = end + 4


def checksum(kind: bytes, body: bytes) -> int:
    return zlib.crc32(body, zlib.crc32(kind))


def _unpacked_bytes(header: bytes) -> int:
    """Of all rows, each with the byte that names its filter."""
    width, height = int.from_bytes(header[:4], "big"), int.from_bytes(header[4:8], "big")
    bits = header[8] * _CHANNELS.get(header[9], 1)
    passes = _INTERLACED if header[12] else [(0, 0, 1, 1)]
    sizes = [(-(-(width - x) // across), -(-(height - y) // down)) for x, y, across, down in passes]
    return sum(rows * (1 + -(-columns * bits // 8)) for columns, rows in sizes if columns > 0 and rows > 0)


def _chunk(kind: bytes, body: bytes, crc: int) -> bytes:
    return b"".join((len(body).to_bytes(4, "big"), kind, body, crc.to_bytes(4, "big")))


def _transparency(body: bytes, header: bytes) -> bytes | None:
    """The transparent colour as 8-bit values, like the pixels that Pillow makes of 2, 4 and 16 bits."""
    depth, colours = (header[8], header[9]) if len(header) == 13 else (0, 0)
    if colours == _PALETTE and body:
        return body[:256]
    if colours == _RGB and len(body) == 6:
        return body if depth == 8 else b"".join(b"\0" + body[at : at + 1] for at in (0, 2, 4))
    if colours == _GREY and len(body) == 2:  # 16 bits stay: so do the pixels
        value: int = (int.from_bytes(body, "big") & (2**depth - 1)) * _TO_8_BITS.get(depth, 1)
        return value.to_bytes(2, "big")
    return None


def _profile(body: bytes, _header: bytes) -> bytes | None:
    _, _, packed = body.partition(b"\0")
    unpacking = zlib.decompressobj()
    try:
        unpacking.decompress(packed[1:], _LARGEST_PROFILE)
    except zlib.error:
        return None
    return body if unpacking.eof and packed[:1] == b"\0" else None


def _rotation(body: bytes, _header: bytes) -> bytes | None:
    body = body.removeprefix(b"Exif\0\0")
    return body if body.startswith(_TIFF_MAGIC) else None


_ANCILLARY: Final[dict[bytes, Callable[[bytes, bytes], bytes | None]]] = {
    b"tRNS": _transparency,
    b"iCCP": _profile,
    b"eXIf": _rotation,
}
