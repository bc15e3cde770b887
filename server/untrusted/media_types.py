"""Which kind of file the first bytes announce: they decide, not what the file or its sender says."""

from typing import Final

HEAD_BYTES: Final = 64  # as many as `media_type` looks at

_MAGIC: Final = (
    (b"\x89PNG\r\n\x1a\n", "image/png"),
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"GIF87a", "image/gif"),
    (b"GIF89a", "image/gif"),
    (b"II*\0", "image/tiff"),
    (b"MM\0*", "image/tiff"),
)
_BMP_HEADERS: Final = {12, 16, 40, 52, 56, 64, 108, 124}  # "BM" alone begins many a text
_AVIF_BRANDS: Final = {b"avif", b"avis"}

# Pictures that are not accepted: the answer says so, instead of calling them damaged.
_OTHER_MAGIC: Final = (
    b"\0\0\x01\0",  # icon
    b"8BPS",
    b"\xff\x0a",  # JPEG XL, bare and in a container
    b"\0\0\0\x0cJXL ",
    b"\0\0\0\x0cjP  ",
    b"II+\0",  # BigTIFF
    b"MM\0+",
    b"<svg",
    b"qoif",
)
_HEIF_BRANDS: Final = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"}


def media_type(head: bytes) -> str | None:
    """The image type of a file that begins like this, None for everything that is not accepted."""
    for magic, kind in _MAGIC:
        if head.startswith(magic):
            return kind
    if head.startswith(b"RIFF") and head[8:12] == b"WEBP":
        return "image/webp"
    if head.startswith(b"BM") and int.from_bytes(head[14:18], "little") in _BMP_HEADERS:
        return "image/bmp"
    return "image/avif" if _AVIF_BRANDS & _brands(head) else None


def is_other_image(head: bytes) -> bool:
    """Whether a file that begins like this is a picture of a kind that is not accepted."""
    return head.lstrip().startswith(_OTHER_MAGIC) or bool(_HEIF_BRANDS & _brands(head))


def _brands(head: bytes) -> set[bytes]:
    """What an ISO media file says that it is compatible with."""
    if head[4:8] != b"ftyp":
        return set()
    end = min(int.from_bytes(head[:4], "big"), HEAD_BYTES, len(head))
    return {head[8:12], *(head[at : at + 4] for at in range(16, end - 3, 4))}
