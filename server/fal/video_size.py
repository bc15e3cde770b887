"""The size in pixels that a video is delivered in."""

from typing import Final

from server.fal.schemas import HunyuanCustomInput

_AT_16_9: Final = {"512p": (896, 512), "720p": (1280, 720)}


def video_size(wanted: HunyuanCustomInput) -> tuple[int, int]:
    """Width and height for the input's resolution and aspect ratio."""
    width, height = _AT_16_9[wanted.resolution]
    return (height, width) if wanted.aspect_ratio == "9:16" else (width, height)
