"""Turn untrusted bytes into a plain PNG: nothing of the original file but its pixels goes further.

Runs in a process of its own (`untrusted/decoder_process.py`): decoders are where malformed files do harm.
"""

from dataclasses import dataclass
from typing import BinaryIO

from PIL import Image, ImageOps, UnidentifiedImageError

from server.errors import ImageLoadError, ImageTooLarge, ImageTooSmall, UnsupportedImageFormat

_FORMATS = ("PNG", "JPEG", "WEBP")


@dataclass(frozen=True, slots=True)
class PixelLimits:
    """Sizes of an image, in pixels."""

    min_side: int
    max_side: int
    max_pixels: int


def media_type(head: bytes) -> str | None:
    """The image type that the first 12 bytes of a file announce, None for everything that is not accepted."""
    if head.startswith(b"\x89PNG\r\n\x1a\n"):
        return "image/png"
    if head.startswith(b"\xff\xd8\xff"):
        return "image/jpeg"
    if head.startswith(b"RIFF") and head[8:12] == b"WEBP":
        return "image/webp"
    return None


def sanitise(source: BinaryIO, target: BinaryIO, limits: PixelLimits) -> None:
    """Check an image and write it as PNG (RGB, or RGBA where it is transparent), EXIF rotation applied.

    Sizes are checked before the pixels are decoded: a 420 KB PNG can unpack to 566 MB.

    Raises:
        UnsupportedImageFormat, ImageTooSmall, ImageTooLarge, ImageLoadError
    """
    try:
        with Image.open(source, formats=_FORMATS) as image:
            _check_size(image.size, limits)
            if getattr(image, "n_frames", 1) != 1:
                raise UnsupportedImageFormat
            ImageOps.exif_transpose(image, in_place=True)
            plain = image.convert("RGBA" if image.has_transparency_data else "RGB")
    except UnidentifiedImageError:
        raise ImageLoadError from None
    except Image.DecompressionBombError:
        raise _too_large(limits) from None
    except (OSError, SyntaxError, ValueError, MemoryError):  # what Pillow raises for truncated and corrupt files
        raise ImageLoadError from None
    bare = Image.new(plain.mode, plain.size)  # without the comments, profiles and EXIF that `plain` still carries
    bare.paste(plain)
    bare.save(target, "PNG", compress_level=1)


def _check_size(size: tuple[int, int], limits: PixelLimits) -> None:
    if min(size) < limits.min_side:
        raise ImageTooSmall(ctx={"min_height": limits.min_side, "min_width": limits.min_side})
    if max(size) > limits.max_side or size[0] * size[1] > limits.max_pixels:
        raise _too_large(limits)


def _too_large(limits: PixelLimits) -> ImageTooLarge:
    return ImageTooLarge(ctx={"max_height": limits.max_side, "max_width": limits.max_side})
