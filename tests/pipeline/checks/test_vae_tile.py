"""What a tile of the VAE needs at full size, counted without computing it."""

from typing import Any

import torch
from torch import Tensor

from pipeline.checks.vae_tile import count_tile_bytes, tile_cases
from pipeline.vae.layers import Layers
from pipeline.vae.passes import EAGER_PASSES, Passes
from pipeline.vae.streamed import StreamedLayers


def _moments(x: Tensor) -> tuple[Tensor, Tensor]:
    rows = torch.empty(2, x.shape[0], *x.shape[2:4], x.shape[1], device=x.device)
    return rows[0], rows[1]


SINGLE_PASSES = Passes(row_moments=_moments, gather=lambda *_: None, gather_activated=lambda *_: None)
"""The memory of compiled passes: they make their results and nothing else."""


def test_a_full_size_tile_fits_8_gb() -> None:
    compiled, eager, whole = (
        count_tile_bytes(layers, torch.float16)
        for layers in (StreamedLayers(passes=SINGLE_PASSES), StreamedLayers(passes=EAGER_PASSES), Layers())
    )
    assert compiled < 5_700_000_000
    assert eager < 6_600_000_000
    assert whole > 8_000_000_000


def test_bytes_are_those_of_the_largest_convolution_and_what_lives_beside_it(tiny_vae: Any) -> None:
    """At the last resolution: what the convolution reads and writes is the least, its input and a residual the most."""
    config = {"block_out_channels": [8, 8, 16, 16], "norm_num_groups": 4}
    counted = count_tile_bytes(Layers(), torch.float32, tile=(3, 8, 8), config=config)
    activations = counted - sum(weight.nbytes for weight in tiny_vae.parameters())
    clip, padded = 8 * 4 * 9 * 64 * 64, 8 * 4 * 11 * 66 * 66
    assert padded + clip <= activations <= padded + 4 * clip


def test_the_cases_of_a_bench_decode_the_same(tiny_vae: Any, vae_io: dict[str, Tensor], close: Any) -> None:
    whole, *others = (decode() for decode in tile_cases(tiny_vae, vae_io["in.z"]).values())
    assert others
    for other in others:
        close("VAE decode, cases of a bench", other, whole, 2e-5)
