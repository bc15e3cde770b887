import pytest

from pipeline.shapes import LatentShape, PixelShape, Strides, TokenGrid

STRIDES = Strides(time=4, space=8, patch=2, patch_time=1)


@pytest.mark.parametrize(
    ("pixels", "latents", "tokens"),
    [
        ((129, 720, 1280), (33, 90, 160), (33, 45, 80)),
        ((129, 896, 512), (33, 112, 64), (33, 56, 32)),
        ((1, 16, 16), (1, 2, 2), (1, 1, 1)),
        ((5, 48, 80), (2, 6, 10), (2, 3, 5)),
    ],
)
def test_from_pixels_to_tokens(
    pixels: tuple[int, int, int], latents: tuple[int, int, int], tokens: tuple[int, int, int]
) -> None:
    shape = LatentShape.from_pixels(PixelShape(*pixels), STRIDES)
    assert shape == LatentShape(*latents)
    assert TokenGrid.from_latents(shape, STRIDES) == TokenGrid(*tokens)


@pytest.mark.parametrize("frames", [-3, 0, 2, 3, 4, 128, 130])
def test_frame_counts_between_latent_frames_are_refused(frames: int) -> None:
    with pytest.raises(ValueError, match=r"`num_frames` must be 4n\+1"):
        LatentShape.from_pixels(PixelShape(frames, 64, 64), STRIDES)


@pytest.mark.parametrize(
    ("height", "width", "name"), [(0, 64, "height"), (-16, 64, "height"), (720, 1279, "width"), (24, 64, "height")]
)
def test_sides_that_do_not_fill_tokens_are_refused(height: int, width: int, name: str) -> None:
    with pytest.raises(ValueError, match=f"`{name}` must be a positive multiple of 16"):
        LatentShape.from_pixels(PixelShape(5, height, width), STRIDES)
