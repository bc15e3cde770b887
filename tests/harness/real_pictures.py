"""Pictures as cameras, phones and programs write them, each with the pixels that are right."""

import io
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from PIL import Image, ImageCms

from server.untrusted.image_sanitise import PixelLimits, sanitise
from tests.harness.pictures import chunk

SIZE = (96, 80)
LIMITS = PixelLimits(64, 8192, 8192 * 6144)


@dataclass(frozen=True)
class Picture:
    """A file, what it shows, and by how much a lossy format may differ."""

    content: bytes
    shows: Image.Image
    tolerance: int = 0


def gradient(mode: str = "RGB") -> Image.Image:
    """Smooth, and different in each corner and channel."""
    across, down = Image.linear_gradient("L").resize(SIZE), Image.linear_gradient("L").rotate(90).resize(SIZE)
    return Image.merge("RGB", (across, down, across.transpose(Image.Transpose.ROTATE_180))).convert(mode)


def encoded(image: Image.Image, form: str, **options: object) -> bytes:
    content = io.BytesIO()
    image.save(content, form, **options)
    return content.getvalue()


def animation(form: str, **options: object) -> bytes:
    others = [Image.new("RGB", SIZE, colour) for colour in ("red", "blue")]
    return encoded(gradient(), form, save_all=True, append_images=others, **options)


def sanitised(content: bytes) -> Image.Image:
    """What the server keeps of a file."""
    target = io.BytesIO()
    sanitise(io.BytesIO(content), target, LIMITS)
    return Image.open(target, formats=["PNG"])


def with_chunks(png: bytes, *added: bytes) -> bytes:
    """Chunks after the header of a PNG."""
    return png[:33] + b"".join(added) + png[33:]


def grey_png(depth: int, rows: list[list[int]], transparent: int | None = None, height: int = 80) -> bytes:
    """A grey PNG with so many bits a pixel, written by hand: few programs write every depth."""
    width = len(rows[0])
    packed = b"".join(b"\0" + _packed(row, depth) for row in rows)
    header = struct.pack(">IIBBBBB", width, height, depth, 0, 0, 0, 0)
    parts = [b"\x89PNG\r\n\x1a\n", chunk(b"IHDR", header)]
    parts += [] if transparent is None else [chunk(b"tRNS", struct.pack(">H", transparent))]
    return b"".join((*parts, chunk(b"IDAT", zlib.compress(packed)), chunk(b"IEND")))


def _packed(row: list[int], depth: int) -> bytes:
    bits = "".join(f"{value:0{depth}b}" for value in row)
    bits += "0" * (-len(bits) % 8)
    return int(bits, 2).to_bytes(len(bits) // 8, "big")


def _grey(depth: int, *, keyed: bool) -> Picture:
    most = 2**depth - 1
    rows = [[(x * most) // 95 for x in range(96)] for _ in range(80)]
    transparent = rows[0][40]
    shows = Image.new("L", SIZE)
    shows.putdata([value >> (depth - 8) if depth > 8 else value * 255 // most for row in rows for value in row])
    shown = shows.convert("RGBA" if keyed else "RGB")
    if keyed:
        alpha = Image.new("L", SIZE)
        alpha.putdata([0 if value == transparent else 255 for row in rows for value in row])
        shown.putalpha(alpha)
    return Picture(grey_png(depth, rows, transparent if keyed else None), shown)


def display_p3() -> bytes:
    """An ICC profile: the primaries of Display P3, with gamma 2.2."""
    return _profile(
        rXYZ=_xyz(0.51512, 0.24120, -0.00105),
        gXYZ=_xyz(0.29198, 0.69225, 0.04189),
        bXYZ=_xyz(0.15710, 0.06657, 0.78407),
    )


def _profile(**primaries: bytes) -> bytes:
    curve = b"curv" + struct.pack(">IIHxx", 0, 1, 0x0233)  # 2.2
    description = b"desc" + struct.pack(">II", 0, 5) + b"test\0" + b"\0" * 79
    tags = {b"desc": description, b"wtpt": _xyz(0.9642, 1.0, 0.8249), b"cprt": b"text\0\0\0\0none\0\0\0\0"}
    tags |= {name.encode(): value for name, value in primaries.items()}
    tags |= dict.fromkeys((b"rTRC", b"gTRC", b"bTRC"), curve)
    table, body, at = struct.pack(">I", len(tags)), b"", 132 + 12 * len(tags)
    for name, value in tags.items():
        padded = value + b"\0" * (-len(value) % 4)
        table += name + struct.pack(">II", at + len(body), len(value))
        body += padded
    head = b"\0" * 8 + struct.pack(">I", 0x02200000) + b"mntrRGB XYZ " + b"\0" * 12 + b"acsp" + b"\0" * 28
    head += struct.pack(">iii", *(round(v * 65536) for v in (0.9642, 1.0, 0.8249))) + b"\0" * 48
    return struct.pack(">I", len(head) + len(table) + len(body)) + head[4:] + table + body


def _xyz(*values: float) -> bytes:
    return b"XYZ \0\0\0\0" + struct.pack(">iii", *(round(value * 65536) for value in values))


def from_p3(pixel: tuple[int, int, int]) -> tuple[int, ...]:
    """The same colour in sRGB, by the matrices of the two standards."""
    red, green, blue = ((value / 255) ** 2.19921875 for value in pixel)
    linear = (
        1.2249 * red - 0.2247 * green,
        -0.0420 * red + 1.0419 * green,
        -0.0197 * red - 0.0786 * green + 1.0979 * blue,
    )
    clipped = [min(max(value, 0.0), 1.0) for value in linear]
    return tuple(round(255 * (1.055 * v ** (1 / 2.4) - 0.055 if v > 0.0031308 else 12.92 * v)) for v in clipped)


def _in_p3(form: str, mode: str = "RGB") -> Picture:
    stored = Image.new("RGB", SIZE, (180, 110, 70))
    shows = Image.new("RGB", SIZE, from_p3((180, 110, 70)))
    if mode == "RGBA":
        for image in (stored, shows):
            image.putalpha(gradient("L"))
    options = {"lossless": True} if form == "WEBP" else {}
    return Picture(encoded(stored, form, icc_profile=display_p3(), **options), shows, 4)


def _lossless(content: bytes) -> Picture:
    return Picture(content, gradient())


def _png_with(kind: bytes, body: bytes, *, sound: bool = True) -> Picture:
    added = chunk(kind, body)
    return _lossless(with_chunks(encoded(gradient(), "PNG"), added if sound else added[:-4] + b"\0\0\0\0"))


def _jpeg(content: bytes) -> Picture:
    return Picture(content, gradient(), 12)


def _broken_mpf() -> bytes:
    content = bytearray(animation("MPO"))
    at = content.index(b"MPF\0") + 4
    content[at + 4 : at + 40] = b"\xfe" * 36
    return bytes(content)


def _with_app(content: bytes, marker: int, body: bytes) -> bytes:
    return content[:2] + bytes([0xFF, marker]) + struct.pack(">H", len(body) + 2) + body + content[2:]


def _without_end(missing: int, **options: object) -> Picture:
    return _jpeg(encoded(gradient(), "JPEG", quality=95, **options)[:-missing])


def _deep_rgb() -> Picture:
    """16 bits a channel, and one colour transparent: in 8 bits all that look like it."""
    row = b"".join(struct.pack(">HHH", (x * 65535) // 95, 0x1234, 0xFEDC) for x in range(96))
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 96, 80, 16, 2, 0, 0, 0))
    key = chunk(b"tRNS", struct.pack(">HHH", (40 * 65535) // 95, 0x1234, 0xFEDC))
    data = chunk(b"IDAT", zlib.compress((b"\0" + row) * 80))
    shows = Image.new("RGBA", SIZE)
    line = [((x * 65535) // 95 >> 8, 0x12, 0xFE, 0 if x == 40 else 255) for x in range(96)]
    shows.putdata(line * 80)
    return Picture(b"".join((b"\x89PNG\r\n\x1a\n", header, key, data, chunk(b"IEND"))), shows)


def _rotated(form: str) -> Picture:
    exif = Image.Exif()
    exif[0x0112] = 6
    options = {"lossless": True} if form == "WEBP" else {}
    shows = gradient().transpose(Image.Transpose.ROTATE_270)
    return Picture(encoded(gradient(), form, exif=exif, **options), shows, 12 if form in {"JPEG", "AVIF"} else 0)


def _deep_tiff(*, inverted: bool = False, big_endian: bool = False) -> Picture:
    rows = [[(x * 65535) // 95 for x in range(96)] for _ in range(80)]
    order = ">" if big_endian else "<"
    data = struct.pack(f"{order}{96 * 80}H", *(value for row in rows for value in row))
    fields = [(256, 96), (257, 80), (258, 16), (259, 1), (262, 0 if inverted else 1), (273, 8), (277, 1), (278, 80)]
    fields.append((279, len(data)))
    entries = b"".join(struct.pack(f"{order}HHIHxx", tag, 3, 1, value) for tag, value in fields)
    head = struct.pack(f"{order}2sHI", b"MM" if big_endian else b"II", 42, 8 + len(data))
    content = head + data + struct.pack(f"{order}H", len(fields)) + entries + b"\0\0\0\0"
    shows = Image.new("L", SIZE)
    shows.putdata([(65535 - value if inverted else value) >> 8 for row in rows for value in row])
    return Picture(content, shows.convert("RGB"))


def _paletted() -> Picture:
    image = gradient().quantize(64)
    return Picture(encoded(image, "GIF"), image.convert("RGB"))


def _first_of_gif() -> Picture:
    return Picture(animation("GIF"), gradient().quantize(256).convert("RGB"), 30)


SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
_PROGRESSIVE, _RESTARTS = {"progressive": True}, {"restart_marker_blocks": 2}

PICTURES: dict[str, Callable[[], Picture]] = {
    # several pictures in one JPEG
    "MPF": lambda: _jpeg(animation("MPO", quality=95)),
    "MPF, its index damaged": lambda: _jpeg(_broken_mpf()),
    # every depth
    **{f"grey PNG, {depth} bits": partial(_grey, depth, keyed=False) for depth in (1, 2, 4, 8, 16)},
    **{f"grey PNG, {depth} bits, one transparent": partial(_grey, depth, keyed=True) for depth in (1, 2, 4, 8, 16)},
    "RGB PNG, 16 bits, one transparent": _deep_rgb,
    "TIFF, 16 bits": _deep_tiff,
    "TIFF, 16 bits, big-endian": lambda: _deep_tiff(big_endian=True),
    "TIFF, 16 bits, white is zero": lambda: _deep_tiff(inverted=True),
    # metadata
    "PNG, eXIf without TIFF": lambda: _png_with(b"eXIf", b"Exif\0\0not a TIFF"),
    "PNG, eXIf cut off": lambda: _png_with(b"eXIf", b"II*\0\x08\0\0\0\xff\xff"),
    "PNG, iCCP of 80 MB": lambda: _png_with(b"iCCP", b"x\0\0" + zlib.compress(b"\0" * 80_000_000)),
    "PNG, iCCP damaged": lambda: _png_with(b"iCCP", b"x\0\0garbage"),
    "PNG, iCCP no profile": lambda: _png_with(b"iCCP", b"x\0\0" + zlib.compress(b"no profile" * 50)),
    "PNG, zTXt of 80 MB": lambda: _png_with(b"zTXt", b"x\0\0" + zlib.compress(b"a" * 80_000_000)),
    "PNG, iTXt of 80 MB": lambda: _png_with(b"iTXt", b"x\0\1\0\0\0" + zlib.compress(b"a" * 80_000_000)),
    "PNG, large tEXt": lambda: _png_with(b"tEXt", b"x\0" + b"a" * 8_000_000),
    **{
        f"PNG, wrong checksum of {kind.decode()}": partial(_png_with, kind, b"II*\0\x08\0\0\0", sound=False)
        for kind in (b"tEXt", b"gAMA", b"cHRM", b"pHYs", b"iCCP", b"eXIf", b"sRGB", b"tRNS", b"tIME", b"bKGD", b"vpAg")
    },
    **{
        f"PNG, short {kind.decode()}": partial(_png_with, kind, b"\0")
        for kind in (b"gAMA", b"cHRM", b"pHYs", b"sRGB", b"tRNS", b"acTL", b"fcTL", b"iTXt", b"sBIT", b"tIME")
    },
    "PNG without its last chunk": lambda: _lossless(encoded(gradient(), "PNG")[:-12]),
    **{
        f"JPEG without end marker{name}": partial(_without_end, cut, **options)
        for name, options, cut in (
            ("", {}, 2),
            (", half of it there", {}, 1),
            (", progressive", _PROGRESSIVE, 2),
            (", restarts", _RESTARTS, 2),
            (", progressive, restarts", _PROGRESSIVE | _RESTARTS, 2),
        )
    },
    "JPEG, zeros instead of the end marker": lambda: _jpeg(encoded(gradient(), "JPEG", quality=95)[:-2] + b"\0" * 5000),
    "JPEG, Exif damaged": lambda: _jpeg(_with_app(encoded(gradient(), "JPEG", quality=95), 0xE1, b"Exif\0\0II*\0\xff")),
    "JPEG, short JFIF": lambda: _jpeg(_with_app(encoded(gradient(), "JPEG", quality=95), 0xE0, b"JFIF\0")),
    "JPEG, Photoshop block damaged": lambda: _jpeg(
        _with_app(encoded(gradient(), "JPEG", quality=95), 0xED, b"Photoshop 3.0\x008BIM\x03\xed\xff\xff\xff\xff")
    ),
    "JPEG, profile damaged": lambda: _jpeg(encoded(gradient(), "JPEG", quality=95, icc_profile=b"no profile" * 20)),
    # colour profiles
    **{f"{form} in Display P3": partial(_in_p3, form) for form in ("PNG", "JPEG", "WEBP", "TIFF", "AVIF")},
    "PNG in Display P3, transparent": lambda: _in_p3("PNG", "RGBA"),
    "PNG in sRGB": lambda: Picture(encoded(gradient(), "PNG", icc_profile=SRGB), gradient(), 1),
    "grey PNG with a profile for RGB": lambda: Picture(
        encoded(gradient("L"), "PNG", icc_profile=SRGB), gradient("L").convert("RGB"), 1
    ),
    "JPEG in CMYK": lambda: Picture(encoded(gradient("CMYK"), "JPEG", quality=95), gradient(), 12),
    # formats; of those that move, the first frame
    "GIF": _paletted,
    "GIF that moves": _first_of_gif,
    "PNG that moves": lambda: _lossless(animation("PNG")),
    "WEBP that moves": lambda: _lossless(animation("WEBP", lossless=True)),
    "AVIF": lambda: _jpeg(encoded(gradient(), "AVIF", quality=95)),
    "AVIF that moves": lambda: _jpeg(animation("AVIF", quality=95)),
    "BMP": lambda: _lossless(encoded(gradient(), "BMP")),
    "TIFF": lambda: _lossless(encoded(gradient(), "TIFF")),
    "TIFF, deflated": lambda: _lossless(encoded(gradient(), "TIFF", compression="tiff_adobe_deflate")),
    "TIFF of several pages": lambda: _lossless(animation("TIFF")),
    **{f"{form}, rotated by EXIF": partial(_rotated, form) for form in ("PNG", "JPEG", "WEBP", "TIFF", "AVIF")},
}
