"""Small pictures as WebP: previews and thumbnails, in no more bytes than their reader takes."""

import io
from collections.abc import Sequence
from typing import Final

from PIL import Image

_QUALITIES: Final = (80, 50, 20, 0)
"""Tried in turn. At 0 even noise, which compresses worst, takes 0.1 bytes a pixel."""


def encode_webp(frames: Sequence[Image.Image], *, max_bytes: int, frame_ms: int = 0) -> bytes:
    """One RGB picture, or several as an animation that repeats; in the best quality that fits into `max_bytes`.

    Raises ValueError if none does.
    """
    for quality in _QUALITIES:
        content = io.BytesIO()
        first, *others = frames
        moving = {"save_all": True, "append_images": others, "duration": frame_ms, "loop": 0} if others else {}
        first.save(content, "WEBP", quality=quality, **moving)
        if content.tell() <= max_bytes:
            return content.getvalue()
    raise ValueError(f"{len(frames)} pictures of {first.width}x{first.height} do not fit into {max_bytes} bytes")
