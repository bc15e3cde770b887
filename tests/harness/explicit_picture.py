"""A picture that the bundled classifier takes for explicit, and no person: noise, made by following its gradient.

No real explicit picture is in this repository; the classifier is the real one, at its real threshold.
"""

from base64 import b64encode
from functools import cache
from io import BytesIO

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from pipeline.safety.bundled import LABELS, SIZE, bundled_model

_STEPS = 8
_STEP = 4 / 255


@cache
@torch.enable_grad()
def explicit_pixels() -> NDArray[np.uint8]:
    """[S,S,3], of the classifier's own size, so that nothing is lost by scaling."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # more would wait for processors that the servers of the tests use
    try:
        return _followed_gradient()
    finally:
        torch.set_num_threads(threads)


def _followed_gradient() -> NDArray[np.uint8]:
    model = bundled_model()
    picture = torch.full((1, 3, SIZE, SIZE), 0.5)
    for _ in range(_STEPS):
        picture.requires_grad_(True)
        logits = model(pixel_values=picture).logits.log_softmax(-1)
        [gradient] = torch.autograd.grad(logits[0, LABELS.index("porn")], picture)
        picture = (picture.detach() + _STEP * gradient.sign()).clamp(0, 1)
    return (picture[0] * 255).round().to(torch.uint8).permute(1, 2, 0).contiguous().numpy()


def explicit_png() -> bytes:
    content = BytesIO()
    Image.fromarray(explicit_pixels()).save(content, "PNG")
    return content.getvalue()


def explicit_uri() -> str:
    return f"data:image/png;base64,{b64encode(explicit_png()).decode()}"
