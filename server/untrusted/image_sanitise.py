"""Turn untrusted bytes into a plain PNG: nothing of the original file but its pixels goes further.

Runs in a process of its own (`untrusted/decoder_process.py`): decoders are where malformed files do harm.
"""

import hashlib
import io
from dataclasses import dataclass
from typing import BinaryIO, Final

from PIL import Image

from server.errors import ImageLoadError, ImageTooLarge, ImageTooSmall, ModelError, UnsupportedImageFormat
from server.untrusted import jpeg_segments, png_chunks
from server.untrusted.avif_colour import avif_colour
from server.untrusted.colour import Colour
from server.untrusted.media_types import HEAD_BYTES, is_other_image, media_type
from server.untrusted.plain_pixels import plain_pixels
from server.untrusted.png_colour import png_colour

_PNG, _JPEG, _AVIF = "image/png", "image/jpeg", "image/avif"
_FORMATS: Final = {
    _PNG: "PNG",
    _JPEG: "JPEG",
    "image/webp": "WEBP",
    "image/gif": "GIF",
    "image/bmp": "BMP",
    "image/tiff": "TIFF",
    _AVIF: "AVIF",
}
_DESCRIBED: Final = {_PNG: png_colour, _AVIF: avif_colour}  # beside an ICC profile


@dataclass(frozen=True, slots=True)
class PixelLimits:
    """Sizes of an image, in pixels."""

    min_side: int
    max_side: int
    max_pixels: int


def sanitise(source: BinaryIO, target: BinaryIO, limits: PixelLimits) -> None:
    """Check an image and write its first frame as PNG (sRGB, with alpha where it is transparent), upright.

    Sizes are checked before the pixels are decoded: a 420 KB PNG can unpack to 566 MB.

    Raises:
        UnsupportedImageFormat, ImageTooSmall, ImageTooLarge, ImageLoadError
    """
    content = source.read()
    kind = media_type(content[:HEAD_BYTES])
    if kind is None:
        raise UnsupportedImageFormat if is_other_image(content[:HEAD_BYTES]) else ImageLoadError
    colour = _DESCRIBED[kind](content) if kind in _DESCRIBED else None
    if kind == _PNG:
        content = png_chunks.without_metadata(content)
    if kind == _JPEG:
        content = jpeg_segments.without_metadata(content)
    try:
        plain = _decoded(content, kind, limits, colour)
    except ImageLoadError:
        if kind != _JPEG:
            raise
        plain = _with_end(content, limits)
    plain.save(target, "PNG", compress_level=1)


def _decoded(content: bytes, kind: str, limits: PixelLimits, colour: Colour | None = None) -> Image.Image:
    try:
        with Image.open(io.BytesIO(content), formats=[_FORMATS[kind]]) as image:
            _check_size(image.size, limits)
            if kind == _PNG and not png_chunks.has_all_rows(content):
                raise ImageLoadError
            return plain_pixels(image, colour)
    except ModelError:
        raise
    except Image.DecompressionBombError:
        raise _too_many_pixels(limits) from None
    except Exception:  # decoders of damaged files raise nearly everything
        raise ImageLoadError from None


def _with_end(content: bytes, limits: PixelLimits) -> Image.Image:
    """A JPEG that lacks nothing but its end marker."""
    ended = jpeg_segments.with_end(content)
    if len({hashlib.sha256(_decoded(one, _JPEG, limits).tobytes()).digest() for one in ended}) != 1:
        raise ImageLoadError
    return _decoded(ended[0], _JPEG, limits)


def _check_size(size: tuple[int, int], limits: PixelLimits) -> None:
    if min(size) < limits.min_side:
        raise ImageTooSmall(ctx={"min_height": limits.min_side, "min_width": limits.min_side})
    if max(size) > limits.max_side:
        side = f"{max(size)} pixels on a side, the limit is {limits.max_side}"
        raise ImageTooLarge(f"Image too large: {side}", ctx=_largest(limits))
    if size[0] * size[1] > limits.max_pixels:
        raise _too_many_pixels(limits, size)


def _too_many_pixels(limits: PixelLimits, size: tuple[int, int] | None = None) -> ImageTooLarge:
    found = f"{size[0]} x {size[1]} is " if size else ""
    most = f"{found}more than {limits.max_pixels} pixels in all"
    return ImageTooLarge(f"Image too large: {most}", ctx=_largest(limits))


def _largest(limits: PixelLimits) -> dict[str, int]:
    return {"max_height": limits.max_side, "max_width": limits.max_side}
