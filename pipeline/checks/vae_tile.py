"""One tile of the VAE at full size: how long its decoding takes on a device, and how much memory, measured or counted.

For `layers` see `pipeline.vae.layers`: `Layers()` is diffusers' computation, `StreamedLayers()` what a GPU uses.
"""

import time
import weakref
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import torch
from diffusers import AutoencoderKLHunyuanVideo
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from pipeline.components import Vae
from pipeline.memory.dtypes import exact_float32
from pipeline.vae import network
from pipeline.vae.layers import Layers
from weights.originals.plan_vae import FULL_SIZE

LATENT_TILE: Final = (17, 32, 32)
"""T, h and w of a tile of 65 frames and 256 x 256 pixels, the largest there is."""


@dataclass(frozen=True, kw_only=True)
class TileTime:
    """`peak_bytes`: allocated on the GPU meanwhile, the model included; None on a CPU."""

    seconds: float
    peak_bytes: int | None


def random_vae(device: torch.device, dtype: torch.dtype, config: Mapping[str, Any] = FULL_SIZE) -> Any:
    """An `AutoencoderKLHunyuanVideo` of random weights, made on the device."""
    with torch.device("meta"):
        vae = AutoencoderKLHunyuanVideo(**config)
    torch.nn.Module.to(vae, dtype)  # diffusers' own warns of models that keep some weights in fp32; this keeps none
    vae = vae.to_empty(device=device).eval().requires_grad_(False)
    for name, parameter in vae.named_parameters():
        if parameter.ndim > 1:
            parameter.normal_(0, parameter[0].numel() ** -0.5)
        else:
            parameter.fill_(float("norm" in name and name.endswith("weight")))
    return vae


@torch.no_grad()
def time_tile(
    vae: Vae, layers: Layers, device: torch.device, *, tile: Sequence[int] = LATENT_TILE, repeats: int = 3
) -> TileTime:
    """The shortest of `repeats` decodings of one tile, after one that is not counted."""
    latents = torch.randn(1, 16, *tile, device=device).to(vae.dtype)
    on_gpu = device.type == "cuda"

    def once() -> float:
        started = time.perf_counter()
        with exact_float32():
            network.decode(vae, latents, causal=True, layers=layers)
        if on_gpu:
            torch.cuda.synchronize(device)
        return time.perf_counter() - started

    once()
    if on_gpu:
        torch.cuda.reset_peak_memory_stats(device)
    seconds = min(once() for _ in range(repeats))
    return TileTime(seconds=seconds, peak_bytes=torch.cuda.max_memory_allocated(device) if on_gpu else None)


@torch.no_grad()
def count_tile_bytes(
    layers: Layers, dtype: torch.dtype, *, tile: Sequence[int] = LATENT_TILE, config: Mapping[str, Any] = FULL_SIZE
) -> int:
    """Most bytes of tensors at one time while a tile is decoded, the model included; nothing is computed.

    Not in it: what a library needs beside tensors, as cuDNN its workspace and copies in another memory format.
    """
    vae = random_vae(torch.device("meta"), dtype, config)
    latents = torch.empty(1, 16, *tile, dtype=dtype, device="meta")
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
