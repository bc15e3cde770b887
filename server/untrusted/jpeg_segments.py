"""A JPEG without what does not matter to its pixels, and with its end marker.

Cameras and phones append further pictures and say so in the first one (MPF); viewers show the first one.
"""

import hashlib
import re
from typing import Final

_END: Final = b"\xff\xd9"
_START_OF_SCAN: Final = 0xDA
_COMMENT: Final = 0xFE
_APPLICATION: Final = range(0xE0, 0xF0)
_TIFF_MAGIC: Final = (b"II*\0", b"MM\0*")
_LAST_COEFFICIENT: Final = 63

# Bytes that a decoder takes for pixels where a scan is not over. They begin with ones, since it takes missing bits for
# zeros, and there are several, since one may happen to mean what was missing.
_NOISE: Final = hashlib.sha256(b"noise").digest().replace(b"\xff", b"")
_FILLERS: Final = [start + _NOISE for start in (b"\xaa\xaa", b"\xfe\xfe", b"\xcc\xcc")]
_RESTART: Final = re.compile(rb"\xff([\xd0-\xd7])")


def without_metadata(content: bytes) -> bytes:
    """The same picture with no application segments but those of colours, profile and rotation."""
    kept = [content[:2]]
    at, has_exif = 2, False
    for start, marker, end in _segments(content):
        body = content[start + 4 : end]
        wanted = _matters(marker, body) and not (has_exif and marker == 0xE1)
        has_exif = has_exif or (wanted and marker == 0xE1)
        if wanted:
            kept.append(content[start:end])
        at = end
    return b"".join((*kept, content[at:]))


def with_end(content: bytes) -> list[bytes]:
    """The picture with an end marker, and again with bytes before the marker that are no part of it.

    Nothing if its scans leave coefficients open. If all decode to the same pixels nothing but the marker was missing:
    where pixels are missing too, the decoder takes the added bytes for them.
    """
    if not _scans_are_complete(content):
        return []
    cut = content.rstrip(b"\xff")
    restarts = _RESTART.findall(cut, cut.rfind(bytes([0xFF, _START_OF_SCAN])))
    expected = b"\xff" + (bytes([0xD0 + (restarts[-1][0] - 0xD0 + 1) % 8]) if restarts else b"\xd0")
    return [cut + _END, *(cut + filler + expected + filler + _END for filler in _FILLERS)]


def _matters(marker: int, body: bytes) -> bool:
    if marker == _COMMENT:
        return False
    if marker not in _APPLICATION:
        return True
    return (
        (marker == 0xE0 and body.startswith(b"JFIF\0") and len(body) >= 14)
        or (marker == 0xE1 and body.startswith(b"Exif\0") and body[6:10] in _TIFF_MAGIC)
        or (marker == 0xE2 and body.startswith(b"ICC_PROFILE\0") and len(body) > 14)
        or (marker == 0xEE and body.startswith(b"Adobe") and len(body) >= 12)
    )


def _segments(content: bytes, at: int = 2) -> list[tuple[int, int, int]]:
    """Start, marker and end of each segment up to the first scan, as far as the file is as it should be."""
    found = []
    while at + 4 <= len(content) and content[at] == 0xFF and 0xC0 <= content[at + 1] < 0xFF:
        marker, length = content[at + 1], int.from_bytes(content[at + 2 : at + 4], "big")
        if marker in {_START_OF_SCAN, 0xD8, 0xD9} or length < 2:
            break
        found.append((at, marker, at + 2 + length))
        at += 2 + length
        while content[at : at + 2] == b"\xff\xff":  # fill bytes
            at += 1
    return found


def _scans_are_complete(content: bytes) -> bool:
    """Whether all scans together give every coefficient of every component its last bit."""
    components: bytes = b""
    open_: set[tuple[int, int]] = set()
    at = 2
    while True:
        segments = _segments(content, at)
        for start, marker, end in segments:
            body = content[start + 4 : end]
            if 0xC0 <= marker <= 0xCF and marker not in {0xC4, 0xC8, 0xCC}:
                components = body[6::3][: body[5]] if len(body) > 5 else b""
                open_ = {(component, k) for component in components for k in range(_LAST_COEFFICIENT + 1)}
        at = segments[-1][2] if segments else at
        if content[at : at + 2] != bytes([0xFF, _START_OF_SCAN]):
            return bool(components) and not open_
        length = int.from_bytes(content[at + 2 : at + 4], "big")
        scan = content[at + 4 : at + 2 + length]
        if len(scan) < 4:
            return False
        first, last, low = scan[-3], scan[-2], scan[-1] & 0x0F
        if low == 0:
            open_ -= {(component, k) for component in scan[1:-3:2] for k in range(first, last + 1)}
        at = _after_scan(content, at + 2 + length)


def _after_scan(content: bytes, at: int) -> int:
    """Where the next segment begins: a marker that is neither a stuffed byte nor a restart."""
    while True:
        at = content.find(b"\xff", at)
        if at < 0 or at + 1 >= len(content):
            return len(content)
        if content[at + 1] == 0 or 0xD0 <= content[at + 1] <= 0xD7:
            at += 2
        elif content[at + 1] == 0xFF:
            at += 1
        else:
            return at
