"""One picture of a clip, taken out of its frames on their way to the MP4."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pipeline.webp import encode_webp

SIDE: Final = 320
"""Pixels of the longer side, at most."""
MAX_BYTES: Final = 40_000


class Thumbnail:
    """Of a clip of `num_frames`, delivered as `width` x `height`: the frame in the middle."""

    def __init__(self, *, num_frames: int, width: int, height: int) -> None:
        self._number = num_frames // 2
        scale = min(1.0, SIDE / max(width, height))
        self._size = max(1, round(width * scale)), max(1, round(height * scale))
        self._frame: NDArray[np.uint8] | None = None

    def taken_from(self, chunks: Iterable[NDArray[np.uint8]]) -> Iterator[NDArray[np.uint8]]:
        """The same chunks [n,H,W,3]; the frame is kept on the way."""
        first = 0
        for chunk in chunks:
            if first <= self._number < first + len(chunk):
                self._frame = chunk[self._number - first].copy()
            first += len(chunk)
            yield chunk

    def write(self, path: Path) -> None:
        """As WebP. Raises OSError, and ValueError if the frame has not passed or compresses too badly."""
        if self._frame is None:
            raise ValueError(f"frame {self._number} has not passed")
        picture = Image.fromarray(self._frame).resize(self._size, Image.Resampling.BICUBIC)
        try:
            path.write_bytes(encode_webp([picture], max_bytes=MAX_BYTES))
        except OSError:
            path.unlink(missing_ok=True)
            raise
