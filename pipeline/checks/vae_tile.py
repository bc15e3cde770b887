"""One tile of the VAE at full size: its memory, counted without computing it, and what a bench has to time."""

import weakref
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Final

import torch
from diffusers import AutoencoderKLHunyuanVideo
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

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
    with _LiveBytes() as live:
        network.decode(vae, latents, causal=True, layers=layers)
    return live.most + sum(weight.nbytes for weight in vae.parameters())


class _LiveBytes(TorchDispatchMode):
    """Counts the storages that operations make, from their making to their end."""

    def __init__(self) -> None:
        super().__init__()
        self.most = self._now = 0
        self._known: set[int] = set()

    def __torch_dispatch__(
        self, operation: Any, _types: Any, arguments: tuple[Any, ...] = (), options: dict[str, Any] | None = None
    ) -> Any:
        result = operation(*arguments, **(options or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, Tensor) and (storage := tensor.untyped_storage())._cdata not in self._known:
                self._known.add(storage._cdata)
                self._now += storage.nbytes()
                self.most = max(self.most, self._now)
                weakref.finalize(storage, self._forget, storage._cdata, storage.nbytes())
        return result

    def _forget(self, key: int, nbytes: int) -> None:
        self._known.remove(key)
        self._now -= nbytes
