"""Pictures that tests send, a PNG that is fine and a decompression bomb, and one that fake generators make."""

import io
import struct
import zlib

from PIL import Image


def png(size: tuple[int, int] = (100, 90)) -> bytes:
    content = io.BytesIO()
    Image.effect_noise(size, 50).save(content, "PNG")
    return content.getvalue()


def webp(grey: int = 0) -> bytes:
    content = io.BytesIO()
    Image.new("L", (16, 9), grey).save(content, "WEBP", lossless=True)
    return content.getvalue()


def bomb() -> bytes:
    """A small PNG that claims to have 3.6 billion pixels."""
    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    data = zlib.compress(b"\0" * 10)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND")


def chunk(kind: bytes, content: bytes = b"") -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
