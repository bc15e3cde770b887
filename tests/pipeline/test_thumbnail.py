"""The picture that is taken out of a clip on its way."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from pipeline.thumbnail import Thumbnail


def clip(frames: int, *, chunk: int = 4) -> Iterator[NDArray[np.uint8]]:
    """Frame n has the grey 10 n; more of them than are asked for, as the VAE gives."""
    for start in range(0, frames, chunk):
        greys = np.arange(start, start + chunk, dtype=np.uint8) * 10
        yield np.broadcast_to(greys[:, None, None, None], (chunk, 48, 80, 3))


@pytest.mark.parametrize(("frames", "grey"), [(1, 0), (9, 40), (17, 80)])
def test_it_is_the_frame_in_the_middle_in_the_delivered_shape(tmp_path: Path, frames: int, grey: int) -> None:
    thumbnail = Thumbnail(num_frames=frames, width=1280, height=720)
    passed = list(thumbnail.taken_from(clip(frames)))
    assert [chunk[0, 0, 0, 0] for chunk in passed] == [chunk[0, 0, 0, 0] for chunk in clip(frames)]
    thumbnail.write(tmp_path / "thumbnail.webp")
    with Image.open(tmp_path / "thumbnail.webp") as picture:
        assert (picture.format, picture.size) == ("WEBP", (320, 180))
        assert abs(np.asarray(picture.convert("RGB")).mean() - grey) < 2


def test_noise_stays_within_40_000_bytes_and_a_small_clip_is_not_made_larger(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    for width, height in ((720, 720), (96, 160)):
        thumbnail = Thumbnail(num_frames=1, width=width, height=height)
        list(thumbnail.taken_from([random.integers(0, 256, (1, height, width, 3), np.uint8)]))
        thumbnail.write(tmp_path / "thumbnail.webp")
        assert (tmp_path / "thumbnail.webp").stat().st_size <= 40_000
    with Image.open(tmp_path / "thumbnail.webp") as picture:
        assert picture.size == (96, 160)


def test_a_clip_that_ends_early_has_none(tmp_path: Path) -> None:
    thumbnail = Thumbnail(num_frames=17, width=96, height=64)
    list(thumbnail.taken_from(clip(8)))
    with pytest.raises(ValueError, match="frame 8 has not passed"):
        thumbnail.write(tmp_path / "thumbnail.webp")
    assert not any(tmp_path.iterdir())
