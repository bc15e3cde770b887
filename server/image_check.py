"""Turn untrusted bytes into a plain PNG: nothing of the original file but its pixels goes further."""

import io

from PIL import Image, ImageOps, UnidentifiedImageError

from server.errors import ImageLoadError, ImageTooLarge, ImageTooSmall, UnsupportedImageFormat
from server.settings import ImageSettings

_FORMATS = ("PNG", "JPEG", "WEBP")


def sanitise(content: bytes, limits: ImageSettings) -> bytes:
    """Check and re-encode an image as PNG (RGB, or RGBA where it is transparent), EXIF rotation applied.

    Sizes are checked before the pixels are decoded: a 420 KB PNG can unpack to 566 MB.

    Raises:
        UnsupportedImageFormat, ImageTooSmall, ImageTooLarge, ImageLoadError
    """
    try:
        with Image.open(io.BytesIO(content), formats=_FORMATS) as image:
            _check_size(image.size, limits)
            if getattr(image, "n_frames", 1) != 1:
                raise UnsupportedImageFormat
            upright = ImageOps.exif_transpose(image)
            transparent = upright.has_transparency_data
            plain = upright.convert("RGBA" if transparent else "RGB")
    except UnidentifiedImageError:
        raise ImageLoadError from None
    except Image.DecompressionBombError:
        raise ImageTooLarge(ctx={"max_height": limits.max_side, "max_width": limits.max_side}) from None
    except (OSError, SyntaxError, ValueError):  # what Pillow raises for truncated and corrupt files
        raise ImageLoadError from None
    encoded = io.BytesIO()
    Image.frombytes(plain.mode, plain.size, plain.tobytes()).save(encoded, "PNG", compress_level=1)
    return encoded.getvalue()


def _check_size(size: tuple[int, int], limits: ImageSettings) -> None:
    if min(size) < limits.min_side:
        raise ImageTooSmall(ctx={"min_height": limits.min_side, "min_width": limits.min_side})
    if max(size) > limits.max_side or size[0] * size[1] > limits.max_pixels:
        raise ImageTooLarge(ctx={"max_height": limits.max_side, "max_width": limits.max_side})
