"""Pictures in a limit of bytes."""

import io

import pytest
from PIL import Image, ImageSequence

from pipeline.webp import encode_webp


def noise(side: int) -> Image.Image:
    return Image.merge("RGB", [Image.effect_noise((side, side), 80) for _ in range(3)])


def test_even_noise_fits() -> None:
    frames = [noise(160) for _ in range(8)]
    content = encode_webp(frames, max_bytes=64_000, frame_ms=645)
    assert len(content) <= 64_000
    with Image.open(io.BytesIO(content)) as animation:
        shown = [frame.copy() for frame in ImageSequence.Iterator(animation)]
        assert [frame.info["duration"] for frame in shown] == [645] * 8
        assert animation.info["loop"] == 0


def test_one_picture_is_no_animation() -> None:
    with Image.open(io.BytesIO(encode_webp([noise(8)], max_bytes=2000))) as picture:
        assert len(list(ImageSequence.Iterator(picture))) == 1


def test_what_cannot_fit_is_said() -> None:
    with pytest.raises(ValueError, match="1 pictures of 64x64 do not fit into 20 bytes"):
        encode_webp([noise(64)], max_bytes=20)
