"""Frames <-> latents through the tiled VAE. B C T H W; latents outside are in the transformer's scale.

The original VAE config has three keys that diffusers' class does not declare. It keeps them in its config (with a
warning in the log when loading), and this module reads them there under their original names:
`sample_size` and `sample_tsize`, pixels and frames of a tile (256 and 64 where absent), and `mid_block_causal_attn`,
whether frames attend to earlier frames only (true where absent, as in diffusers' class).
"""

from collections.abc import Callable, Container, Iterator
from typing import TypeAlias

import numpy as np
import torch
from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution
from numpy.typing import NDArray
from torch import Tensor

from pipeline.components import Vae
from pipeline.memory.dtypes import exact_float32, in_float32
from pipeline.memory.placement import onloaded
from pipeline.options import Posterior
from pipeline.vae import network as vae_network
from pipeline.vae.tiling import Axis, TileFunction, Tiling, input_tiles, tiled

OnTile: TypeAlias = Callable[[], None]
Elsewhere: TypeAlias = Callable[[TileFunction], TileFunction]

_SAMPLE_SIZE = 256
_SAMPLE_TSIZE = 64


def encode_tiling(vae: Vae) -> Tiling:
    size, frames = vae.config.get("sample_size", _SAMPLE_SIZE), vae.config.get("sample_tsize", _SAMPLE_TSIZE)
    return Tiling(
        space=Axis.of(size, size // vae.spatial_compression_ratio),
        time=Axis.of(frames, frames // vae.temporal_compression_ratio),
    )


def decode_tiling(vae: Vae) -> Tiling:
    size, frames = vae.config.get("sample_size", _SAMPLE_SIZE), vae.config.get("sample_tsize", _SAMPLE_TSIZE)
    return Tiling(
        space=Axis.of(size // vae.spatial_compression_ratio, size),
        time=Axis.of(frames // vae.temporal_compression_ratio, frames),
    )


def decode_tile_count(vae: Vae, latents: Tensor) -> int:
    return decode_tiling(vae).count(*latents.shape[2:])


@torch.no_grad()
def encode_moments(vae: Vae, pixels: Tensor, *, on_tile: OnTile | None = None) -> Tensor:
    """[B,3,F,H,W] in -1..1 -> fp32 moments [B,32,T,h,w]. Overlapping tiles blend their moments."""
    with onloaded(vae):
        function = _counted(_tile_function(vae, vae_network.encode), on_tile)
        return torch.cat(list(tiled(function, pixels, encode_tiling(vae))), dim=2)


def encode_reference(
    vae: Vae, pixels: Tensor, *, posterior: Posterior, generator: torch.Generator | None, on_tile: OnTile | None = None
) -> Tensor:
    """Identity image [1,3,1,H,W] in -1..1 -> fp32 latent [1,16,1,h,w] in the transformer's scale."""
    distribution = DiagonalGaussianDistribution(encode_moments(vae, pixels, on_tile=on_tile))
    latents = distribution.mode() if posterior == "mode" else distribution.sample(generator=generator)
    return latents * vae.config.scaling_factor


@torch.no_grad()  # as a decorator it restores grad mode at every yield; a `with` block would not
def decode_chunks(
    vae: Vae, latents: Tensor, *, on_tile: OnTile | None = None, elsewhere: Elsewhere | None = None
) -> Iterator[Tensor]:
    """Latents [1,16,T,h,w] -> fp32 chunks [1,3,n,H,W] in 0..1, in order, one temporal tile at a time.

    `elsewhere` makes of the function that computes a tile one that may get it from somewhere else.
    """
    with onloaded(vae):
        function = _tile_function(vae, vae_network.decode)
        function = _counted(function if elsewhere is None else elsewhere(function), on_tile)
        for chunk in tiled(function, _unscaled(vae, latents), decode_tiling(vae)):
            yield (chunk / 2 + 0.5).clamp(0, 1)


def decode_stream(
    vae: Vae, latents: Tensor, *, on_tile: OnTile | None = None, elsewhere: Elsewhere | None = None
) -> Iterator[NDArray[np.uint8]]:
    """Latents [1,16,T,h,w] on the VAE's device -> uint8 frames [n,H,W,3], in order, one temporal tile at a time.

    `on_tile` is called after each of `decode_tile_count` spatial tiles and may raise to stop.
    """
    for chunk in decode_chunks(vae, latents, on_tile=on_tile, elsewhere=elsewhere):
        yield to_uint8(chunk)


@torch.no_grad()
def decode_tiles(vae: Vae, latents: Tensor, numbers: Container[int]) -> Iterator[Tensor]:
    """The tiles of these numbers, in the order of `decode_chunks`, fp32 [1,3,n,H,W], as they are before blending."""
    with onloaded(vae):
        function = _tile_function(vae, vae_network.decode)
        for number, tile in enumerate(input_tiles(_unscaled(vae, latents), decode_tiling(vae))):
            if number in numbers:
                yield function(tile).float()


def decoded_tile_sizes(vae: Vae, latents: Tensor) -> list[torch.Size]:
    """[1,3,n,H,W] of every tile."""
    time, space = vae.temporal_compression_ratio, vae.spatial_compression_ratio
    return [
        torch.Size(
            (1, vae.config.out_channels, (tile.shape[2] - 1) * time + 1, *(side * space for side in tile.shape[3:]))
        )
        for tile in input_tiles(latents, decode_tiling(vae))
    ]


def _unscaled(vae: Vae, latents: Tensor) -> Tensor:
    return latents.float() / vae.config.scaling_factor


def to_uint8(chunk: Tensor) -> NDArray[np.uint8]:
    """[1,3,n,H,W] in 0..1 -> [n,H,W,3]. Truncated, not rounded, like the reference's files."""
    return (chunk[0] * 255).to(torch.uint8).permute(1, 2, 3, 0).contiguous().cpu().numpy()


def _tile_function(vae: Vae, network: Callable[..., Tensor]) -> TileFunction:
    """One tile through the network in the VAE's dtype; a 16-bit result that overflows is computed again in fp32."""
    causal = vae.config.get("mid_block_causal_attn", True)

    def run(tile: Tensor) -> Tensor:
        dtype = vae.dtype
        with exact_float32():
            out = network(vae, tile.to(dtype), causal=causal)
        if dtype != torch.float32 and not _finite(out):
            with in_float32(vae, dtype), exact_float32():
                out = network(vae, tile.float(), causal=causal)
        return out

    return run


def _counted(function: TileFunction, on_tile: OnTile | None) -> TileFunction:
    def run(tile: Tensor) -> Tensor:
        out = function(tile)
        if on_tile is not None:
            on_tile()
        return out

    return run


def _finite(x: Tensor) -> bool:
    """Infinities and NaN show in the extrema, which cost far less than `isfinite` of every value."""
    low, high = x.aminmax()
    return bool(torch.isfinite(low) & torch.isfinite(high))
