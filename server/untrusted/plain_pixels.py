"""From a picture in whatever mode, profile and rotation to 8 bits of sRGB, upright."""

import io
from typing import Final

from PIL import Image, ImageCms

from server.errors import UnsupportedImageFormat
from server.untrusted.colour import Colour, Hdr

_ORIENTATION: Final = 0x0112  # of EXIF
_UPRIGHT: Final = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_BITS_PER_SAMPLE, _PHOTOMETRIC, _WHITE_IS_ZERO = 258, 262, 0  # of TIFF
_SPACES: Final = {"L": b"GRAY", "RGB": b"RGB ", "CMYK": b"CMYK"}  # of modes, in the words of profiles


def plain_pixels(image: Image.Image, colour: Colour | None = None) -> Image.Image:
    """The first frame as RGB, or RGBA where it is transparent, with nothing else attached.

    `colour` is what the file says about its colours beside an ICC profile.

    Raises:
        UnsupportedImageFormat: numbers whose black and white are not known (32 bits a channel, 12, floating point).
    """
    image.load()
    orientation, profile = _orientation(image), image.info.get("icc_profile")
    image, alpha = _split(image)
    if colour is None or (isinstance(profile, bytes) and not colour.before_icc):
        image = _as_srgb(image, profile)
    else:
        image = _from_described(image.convert("RGB"), colour)
    if alpha is not None:
        image.putalpha(alpha)
    if orientation in _UPRIGHT:
        image = image.transpose(_UPRIGHT[orientation])
    image.info = {}
    return image


def _orientation(image: Image.Image) -> int | None:
    try:
        found = image.getexif().get(_ORIENTATION)
    except MemoryError:
        raise
    except Exception:  # whatever a parser of damaged metadata raises: the pixels are fine
        return None
    return found if isinstance(found, int) else None


def _split(image: Image.Image) -> tuple[Image.Image, Image.Image | None]:
    """Colours as 8 bits in a mode that has a profile, and the alpha channel."""
    if image.mode.startswith("I;16"):
        return _from_16_bits(image)
    if image.mode in {"I", "F"}:
        raise UnsupportedImageFormat
    if image.has_transparency_data:
        if image.mode == "LA":
            return image.getchannel("L"), image.getchannel("A")
        image = image if image.mode == "RGBA" else image.convert("RGBA")
        return image.convert("RGB"), image.getchannel("A")
    if image.mode == "1":
        return image.convert("L"), None
    return (image if image.mode in _SPACES else image.convert("RGB")), None


def _from_16_bits(image: Image.Image) -> tuple[Image.Image, Image.Image | None]:
    tags = getattr(image, "tag_v2", {})
    if tags.get(_BITS_PER_SAMPLE, (16,))[0] != 16:
        raise UnsupportedImageFormat
    values = image.convert("I")
    high = [value >> 8 for value in range(65536)]
    if tags.get(_PHOTOMETRIC) == _WHITE_IS_ZERO:
        high.reverse()
    transparent = image.info.get("transparency")
    alpha = None
    if isinstance(transparent, int):
        alpha = values.point([0 if value == transparent else 255 for value in range(65536)], "L")
    return values.point(high, "L"), alpha


def _as_srgb(image: Image.Image, profile: object) -> Image.Image:
    """Colours by their profile; one that is damaged, or that of another colour space, is ignored."""
    space = profile[16:20] if isinstance(profile, bytes) else b""
    if space != _SPACES[image.mode] and image.mode != "RGB":
        image = image.convert("RGB")  # grey is often sent with a profile for RGB
    if isinstance(profile, bytes) and space == _SPACES[image.mode]:
        try:
            return _converted(image, profile)
        except MemoryError:
            raise
        except Exception:  # as above
            return image.convert("RGB")
    return image


def _from_described(image: Image.Image, colour: Colour) -> Image.Image:
    """RGB by what the file says; what makes no sense is ignored."""
    if colour.is_srgb:
        return image
    try:
        if isinstance(colour.curve, Hdr):
            return colour.tone_mapped(image, colour.curve)
        return _converted(image, colour.profile(colour.curve))
    except (ValueError, ImageCms.PyCMSError):
        return image


def _converted(image: Image.Image, profile: bytes) -> Image.Image:
    source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
    transform = ImageCms.buildTransform(source, ImageCms.createProfile("sRGB"), image.mode, "RGB")
    if image.mode == "RGB":
        ImageCms.applyTransform(image, transform, inPlace=True)  # a large picture is not there twice
        return image
    converted = ImageCms.applyTransform(image, transform)
    if converted is None:
        raise ValueError
    return converted
