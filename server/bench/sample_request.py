"""Requests for benchmarks and tests to send."""

import base64
import io
from typing import Any

from PIL import Image

from server.fal.data_uri import PREFIX
from server.fal.example import PHOTO


def example(**changes: Any) -> dict[str, Any]:
    """The smallest valid request with a photo, changed."""
    return {"prompt": "a colour", "image_url": photo_uri(), "num_inference_steps": 10, "num_frames": 81} | changes


def photo_uri() -> str:
    """The photo of the example as a data URI."""
    return f"{PREFIX}image/jpeg;base64,{base64.b64encode(PHOTO.read_bytes()).decode()}"


def grey_uri() -> str:
    """A small picture as a data URI, where the bytes of a photo would be measured too."""
    encoded = io.BytesIO()
    Image.new("RGB", (128, 128), "grey").save(encoded, "PNG")
    return f"{PREFIX}image/png;base64,{base64.b64encode(encoded.getvalue()).decode()}"
