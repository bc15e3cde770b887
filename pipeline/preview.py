"""What a clip will look like, seen while it is denoised.

Every step predicts the end of the path: x0 = x - sigma * v. A linear map makes colours of its channels, one pixel for
each latent one, of a few frames: one small product instead of a decode. Each VAE has its own map; it is fitted to a
picture that the VAE encodes once. C channels, n frames, h w latent sides.
"""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageDraw
from torch import Tensor

from pipeline.components import Scheduler, Vae
from pipeline.memory.host_copy import HostCopy
from pipeline.options import PREVIEW_EVERY_S
from pipeline.vae.codec import encode_reference
from pipeline.webp import encode_webp

FRAMES: Final = 8
"""At most so many of a clip's latent frames, spread over it."""
SIDE: Final = 160
MAX_BYTES: Final = 64_000

_PICTURE_SIDE: Final = 128  # pixels: 256 latent ones for 16 unknowns a colour, at the published stride of 8
_DISCS: Final = 600  # leave nothing of the background
_RADII: Final = (3.0, 40.0)  # pixels: below one latent pixel to several
_RIDGE: Final = 1e-3  # of the variance of a scaled latent, which is about 1; settles channels that never change


@dataclass(frozen=True, slots=True)
class ColourMap:
    """weight [3,C] and bias [3] on the device of the latents, which are in the transformer's scale."""

    weight: Tensor
    bias: Tensor

    def colours(self, latents: Tensor) -> Tensor:
        """[n,C,h,w] -> uint8 [n,h,w,3]."""
        rgb = torch.einsum("nchw,kc->nhwk", latents, self.weight) + self.bias
        return (rgb.clamp(0, 1) * 255).round().to(torch.uint8)


@torch.no_grad()
def fit_colour_map(vae: Vae, device: torch.device | str) -> ColourMap:
    """The map of this VAE: a ridge regression from latents to the mean colour of their pixels, solved in float64.

    Fitted to a picture made for it rather than to the identity image of a request, which may be grey all over.
    """
    stride = vae.spatial_compression_ratio
    pixels = torch.from_numpy(np.array(overlapping_discs(_PICTURE_SIDE))).permute(2, 0, 1).float() / 255  # [3,H,W]
    view = (pixels * 2 - 1)[None, :, None].to(device)
    latents = encode_reference(vae, view, posterior="mode", generator=None)[0, :, 0]
    x = latents.flatten(1).T.cpu().double()  # [hw,C]
    y = F.avg_pool2d(pixels, stride).flatten(1).T.double()  # [hw,3]
    centred = x - x.mean(0)
    gram = centred.T @ centred / len(x) + _RIDGE * torch.eye(x.shape[1], dtype=x.dtype)
    weight = torch.linalg.solve(gram, centred.T @ (y - y.mean(0)) / len(x)).T
    bias = y.mean(0) - weight @ x.mean(0)
    return ColourMap(weight.float().to(device), bias.float().to(device))


def overlapping_discs(side: int) -> Image.Image:
    """Discs that cover each other, their radii by an inverse square law: edges and areas as in a photo.

    Known as "dead leaves" (Lee, Mumford and Huang 2001, "Occlusion models for natural images"). Any brightness, with
    less of colour, as most photos have.
    """
    random = np.random.default_rng(0)
    smallest, largest = _RADII
    picture = Image.new("RGB", (side, side))
    draw = ImageDraw.Draw(picture)
    for _ in range(_DISCS):
        # The inverse of the distribution function of a density that falls with radius ** -3.
        radius = (random.uniform(largest**-2, smallest**-2)) ** -0.5
        x, y = random.uniform(0, side, 2)
        grey, colour = random.uniform(0, 255), random.normal(0, 40, 3)
        fill = tuple(int(value) for value in np.clip(grey + colour, 0, 255))
        draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=fill)
    return picture


@dataclass(frozen=True, slots=True)
class Preview:
    """The clip as it is predicted after `step` of `total` steps: small pictures, evenly spread over it."""

    step: int
    total: int
    frames: list[Image.Image]

    def webp(self, *, seconds: float) -> bytes:
        """An animation that takes `seconds`, in at most SIDE pixels a side and MAX_BYTES."""
        small = [frame.copy() for frame in self.frames]
        for frame in small:
            frame.thumbnail((SIDE, SIDE))
        return encode_webp(small, max_bytes=MAX_BYTES, frame_ms=round(1000 * seconds / len(small)))


class Scheduled(Protocol):
    """The pipeline, as far as previews look at it."""

    @property
    def scheduler(self) -> Scheduler: ...


class LatentPreviews:
    """A `callback_on_step_end` that shows previews, at most one in `every_s` seconds:

        previews = LatentPreviews(fit_colour_map(pipe.vae, pipe.device), show)
        pipe(prompt, image, callback_on_step_end=previews, callback_on_step_end_tensor_inputs=previews.tensor_inputs)

    `show` is called with a `Preview` on a thread of its own, one at a time; a preview that is due while it is at work
    is left out. Latents are only read, and nothing waits for the device but that thread.
    """

    tensor_inputs = ("latents", "velocity")

    def __init__(
        self,
        colour_map: ColourMap,
        show: Callable[[Preview], None],
        *,
        every_s: float = PREVIEW_EVERY_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._map = colour_map
        self._show = show
        self._every_s = every_s
        self._clock = clock
        self._last: float | None = None
        self._showing: threading.Thread | None = None

    def __call__(self, pipe: Scheduled, step: int, _timestep: Tensor, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        """After step number `step`, from 0."""
        now = self._clock()
        recent = self._last is not None and now - self._last < self._every_s
        if recent or (self._showing is not None and self._showing.is_alive()):
            return tensors
        self._last = now
        sigma = pipe.scheduler.sigmas[step + 1].item()  # they are on the CPU
        latents, velocity = tensors["latents"][0], tensors["velocity"][0]
        clean = [latents[:, frame] - sigma * velocity[:, frame] for frame in spread(latents.shape[1])]
        copy = HostCopy(self._map.colours(torch.stack(clean)))
        self._showing = threading.Thread(
            target=self._finish, args=(step + 1, len(pipe.scheduler.timesteps), copy), name="preview", daemon=True
        )
        self._showing.start()
        return tensors

    def _finish(self, step: int, total: int, copy: HostCopy) -> None:
        self._show(Preview(step, total, [Image.fromarray(frame) for frame in copy.wait().numpy()]))


def spread(count: int) -> list[int]:
    """At most FRAMES numbers of `count` frames, the first and the last among them, evenly apart."""
    if count <= FRAMES:
        return list(range(count))
    return [round(number * (count - 1) / (FRAMES - 1)) for number in range(FRAMES)]
