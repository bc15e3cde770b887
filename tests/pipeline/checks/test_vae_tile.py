"""What a tile of the VAE needs at full size, counted without computing it."""

import torch

from pipeline.checks.vae_tile import count_tile_bytes, random_vae, time_tile
from pipeline.vae.layers import Layers
from pipeline.vae.passes import EAGER_PASSES
from pipeline.vae.streamed import StreamedLayers

TINY = {"block_out_channels": [8, 8, 16, 16], "norm_num_groups": 4}


def test_a_full_size_tile_fits_8_gb() -> None:
    streamed = StreamedLayers(passes=EAGER_PASSES)  # compiled ones need less
    assert count_tile_bytes(streamed, torch.float16) <= 8_000_000_000 < count_tile_bytes(Layers(), torch.float16)


def test_bytes_are_those_of_the_largest_layer_and_its_neighbours() -> None:
    """At the last resolution the model is small beside what it computes, which is no less than the padded input of a
    convolution, its input and its output.
    """
    counted = count_tile_bytes(Layers(), torch.float32, tile=(3, 8, 8), config=TINY)
    weights = sum(weight.nbytes for weight in random_vae(torch.device("meta"), torch.float32, TINY).parameters())
    inner, padded = 9 * 64 * 64 * 8 * 4, 11 * 66 * 66 * 8 * 4
    assert 2 * inner + padded <= counted - weights <= 4 * inner + 2 * padded


def test_a_tile_is_timed() -> None:
    device = torch.device("cpu")
    measured = time_tile(random_vae(device, torch.float32, TINY), Layers(), device, tile=(1, 2, 2), repeats=1)
    assert measured.seconds > 0
    assert measured.peak_bytes is None
