"""One tile of the VAE at full size: its memory, counted without computing it, and what a bench has to time."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Final

import torch
from diffusers import AutoencoderKLHunyuanVideo
from torch import Tensor

from pipeline.checks.live_bytes import LiveBytes
from pipeline.components import Vae
from pipeline.vae import network
from pipeline.vae.layers import Layers
from pipeline.vae.passes import EAGER_PASSES
from pipeline.vae.streamed import StreamedLayers
from weights.originals.plan_vae import FULL_SIZE

LATENT_TILE: Final = (17, 32, 32)
"""T, h and w of a tile of 65 frames and 256 x 256 pixels, the largest there is."""


def tile_cases(vae: Vae, latents: Tensor) -> dict[str, Callable[[], Tensor]]:
    """One tile, [1,16,T,h,w] of the VAE's dtype, decoded by each kind of layers; by its name."""
    layers = {
        "diffusers' layers": Layers(),
        "streamed, compiled": StreamedLayers(),
        "streamed, compiled, contiguous": StreamedLayers(memory_format=torch.contiguous_format),
        "streamed, eager": StreamedLayers(passes=EAGER_PASSES),
    }
    return {
        name: partial(network.decode, vae, latents, causal=True, layers=kind)
        for name, kind in layers.items()
        if "compiled" not in name or latents.device.type != "cpu"
    }


@torch.no_grad()
def count_tile_bytes(
    layers: Layers, dtype: torch.dtype, *, tile: Sequence[int] = LATENT_TILE, config: Mapping[str, Any] = FULL_SIZE
) -> int:
    """Most bytes of tensors at one time while a tile is decoded, the weights included.

    Not in it: what a library needs beside tensors, as cuDNN its workspace and copies in another memory format.
    """
    with torch.device("meta"):
        vae = AutoencoderKLHunyuanVideo(**config)
        latents = torch.empty(1, 16, *tile, dtype=dtype)
    torch.nn.Module.to(vae, dtype)  # diffusers' own warns of models that keep some weights in fp32; this keeps none
    with LiveBytes() as live:
        network.decode(vae, latents, causal=True, layers=layers)
    return live.peak + sum(weight.nbytes for weight in vae.parameters())
