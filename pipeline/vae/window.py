"""Which positions of its input a causal convolution reads.

B C T H W. Its input may be enlarged first, by repeating positions but not the first frame; edges are repeated, in time
in front only. Both are a matter of indices: neither is ever in memory but for what one convolution reads.
"""

from itertools import pairwise

import torch
from torch import Tensor

from pipeline.components import Convolution
from pipeline.vae.passes import Positions


class Window:
    """Of the convolution `conv` over `x` enlarged by `factor` along T, H and W. `frames`: how many its output has."""

    def __init__(self, conv: Convolution, x: Tensor, factor: tuple[int, int, int] = (1, 1, 1)) -> None:
        self._kernel, self._stride, self._factor = conv.kernel_size, conv.stride, factor
        self._device, self._value_bytes = x.device, x.itemsize
        _, self._channels, frames, height, width = x.shape
        self._rows, self._columns = self._along(height, 1), self._along(width, 2)
        enlarged = 1 + (frames - 1) * factor[0]
        self.frames = (enlarged - 1) // self._stride[0] + 1

    @property
    def is_input(self) -> bool:
        """Whether the input itself is read, frame by frame."""
        return (*self._kernel, *self._stride, *self._factor) == (1,) * 9

    def parts(self, nbytes: int) -> list[range]:
        """The output frames in parts, for each of which at most `nbytes` are read."""
        frame_bytes = self._channels * len(self._rows) * len(self._columns) * self._value_bytes
        context = self._kernel[0] - self._stride[0]
        return even_parts(self.frames, self._stride[0] * frame_bytes, nbytes - context * frame_bytes)

    def positions(self, part: range) -> Positions:
        """What is read for the output frames `part`."""
        first = part.start * self._stride[0] - self._kernel[0] + 1
        count = (len(part) - 1) * self._stride[0] + self._kernel[0]
        frames = torch.arange(first, first + count, device=self._device).clamp(0)
        return (frames + self._factor[0] - 1) // self._factor[0], self._rows, self._columns

    def _along(self, side: int, axis: int) -> Tensor:
        edge, enlarged = self._kernel[axis] // 2, side * self._factor[axis]
        return torch.arange(-edge, enlarged + edge, device=self._device).clamp(0, enlarged - 1) // self._factor[axis]


def even_parts(frames: int, frame_bytes: int, nbytes: int) -> list[range]:
    """The frames in as few parts as possible, none of more than `nbytes` (or one frame), equal in length up to one."""
    longest = max(1, nbytes // frame_bytes)
    count = -(-frames // longest)
    return [range(start, end) for start, end in pairwise(frames * index // count for index in range(count + 1))]
