"""The identity image and its two views: a square one for LLaVA, one in the size of the video for the VAE."""

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps

from pipeline.conditioning.bilinear import resize_bilinear
from pipeline.options import Alpha

# OpenAI CLIP's pixel statistics, which LLaVA's vision tower was trained with.
_CLIP_MEAN = (0.48145466, 0.4578275, 0.4082107)
_CLIP_STD = (0.26862954, 0.26130258, 0.27577711)

_WHITE = 255


def rgb_pixels(image: Image.Image, *, alpha: Alpha) -> NDArray[np.uint8]:
    """Any PIL image, upright by its EXIF tag, as [H, W, 3] uint8."""
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I") or image.mode == "F":  # 16-bit and wider greys: the high byte, as image readers do
        grey = np.asarray(image)
        grey = (np.clip(grey, 0, 65535).astype(np.int64) >> 8) if image.mode != "F" else np.clip(grey, 0, 255)
        return np.repeat(grey.astype(np.uint8)[:, :, None], 3, axis=2)
    if not image.has_transparency_data:
        return np.asarray(image.convert("RGB"))
    rgba = image.convert("RGBA")
    if alpha == "white":
        rgba = Image.alpha_composite(Image.new("RGBA", rgba.size, (_WHITE,) * 4), rgba)
    return np.asarray(rgba)[:, :, :3]


def fit_on_white(pixels: NDArray[np.uint8], height: int, width: int) -> NDArray[np.uint8]:
    """Scales [h, w, 3] to fit inside [height, width, 3] and centres it on white."""
    rows, cols = pixels.shape[:2]
    if width / cols > height / rows:
        fitted_rows, fitted_cols = height, int(cols / rows * height)
    else:
        fitted_rows, fitted_cols = int(rows / cols * width), width
    # A picture thinner than one pixel after scaling keeps one.
    fitted = resize_bilinear(pixels, max(fitted_rows, 1), max(fitted_cols, 1))
    canvas = np.full((height, width, 3), _WHITE, dtype=np.uint8)
    top, left = (height - fitted.shape[0]) // 2, (width - fitted.shape[1]) // 2
    canvas[top : top + fitted.shape[0], left : left + fitted.shape[1]] = fitted
    return canvas


def llava_view(pixels: NDArray[np.uint8], size: int) -> torch.Tensor:
    """[h, w, 3] uint8 -> [1, 3, size, size] fp32 in CLIP's normalisation."""
    square = _channels_first(fit_on_white(pixels, size, size))
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (_CLIP_MEAN, _CLIP_STD))
    return ((square - mean) / std).unsqueeze(0)


def vae_view(pixels: NDArray[np.uint8], height: int, width: int) -> torch.Tensor:
    """[h, w, 3] uint8 -> [1, 3, 1, height, width] fp32 in -1..1."""
    framed = _channels_first(fit_on_white(pixels, height, width))
    return (framed * 2 - 1).unsqueeze(0).unsqueeze(2)


def white_pixels() -> NDArray[np.uint8]:
    """The identity image of the unconditional branch: a white pixel, which every view pads with white."""
    return np.full((1, 1, 3), _WHITE, dtype=np.uint8)


def _channels_first(pixels: NDArray[np.uint8]) -> torch.Tensor:
    """[H, W, 3] uint8 -> [3, H, W] fp32 in 0..1."""
    return torch.from_numpy(pixels.copy()).permute(2, 0, 1).contiguous().float() / 255
