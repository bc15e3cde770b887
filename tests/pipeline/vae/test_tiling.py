"""Tiles against no tiles, with functions whose result does not depend on the tiling."""

import pytest
import torch
from torch import Tensor

from pipeline.vae.tiling import Axis, Tiling, tiled

# 4 frames per latent but for the first, 2 pixels per latent side
DECODE = Tiling(space=Axis.of(8, 16), time=Axis.of(4, 16))


def _upsample(z: Tensor) -> Tensor:
    """Causal in time like the VAE: the first frame alone, later ones fourfold."""
    wide = z.repeat_interleave(2, 3).repeat_interleave(2, 4)
    return torch.cat([wide[:, :, :1], wide[:, :, 1:].repeat_interleave(4, 2)], dim=2)


@pytest.mark.parametrize("frames", range(1, 15))
@pytest.mark.parametrize(("height", "width"), [(4, 4), (8, 8), (9, 8), (6, 20), (17, 25)])
def test_a_local_function_is_unchanged(frames: int, height: int, width: int) -> None:
    z = torch.randn(1, 2, frames, height, width, generator=torch.Generator().manual_seed(frames))
    chunks = list(tiled(_upsample, z, DECODE))
    assert torch.allclose(torch.cat(chunks, dim=2), _upsample(z), atol=1e-6)
    assert len(chunks) == len(DECODE.time_starts(frames))


def test_only_one_temporal_tile_is_made_at_a_time() -> None:
    made: list[int] = []

    def count(z: Tensor) -> Tensor:
        made.append(1)
        return _upsample(z)

    z = torch.zeros(1, 1, 11, 4, 4)
    stream = tiled(count, z, DECODE)
    next(stream)
    assert len(made) == 1
    assert len(list(stream)) + 1 == len(made) == DECODE.count(11, 4, 4) == 4


def test_published_geometry_of_129_frames_at_720p() -> None:
    tiling = Tiling(space=Axis.of(32, 256), time=Axis.of(16, 64))
    assert (tiling.space.stride, tiling.space.keep, tiling.space.blend) == (24, 192, 64)
    assert (tiling.time.stride, tiling.time.keep, tiling.time.blend) == (12, 48, 16)
    assert [min(33, start + 17) - start for start in tiling.time_starts(33)] == [17, 17, 9]
    assert tiling.count(33, 90, 160) == 3 * 4 * 7
