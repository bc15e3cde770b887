"""Overlapping tiles over a clip, blended linearly: the geometry the VAE was published with.

B C T H W throughout. The same code encodes and decodes; only the strides of input and output swap roles. Tiles are
computed and blended in reading order and yielded one temporal tile at a time, so that a long clip is never held as a
whole.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

TileFunction = Callable[[Tensor], Tensor]


@dataclass(frozen=True, slots=True)
class Axis:
    """Tiling along one axis: input `tile` and `stride`; in the output, the part kept (`keep`) and blended (`blend`)."""

    tile: int
    stride: int
    keep: int
    blend: int

    @classmethod
    def of(cls, tile: int, out_tile: int) -> "Axis":
        """Neighbours overlap by a quarter."""
        stride, keep = tile * 3 // 4, out_tile * 3 // 4
        return cls(tile=tile, stride=stride, keep=keep, blend=out_tile - keep)


@dataclass(frozen=True, slots=True)
class Tiling:
    space: Axis
    time: Axis

    def time_starts(self, frames: int) -> range:
        """First input frame of each temporal tile; one tile when all fit into it.

        No tile starts at the last frame: that frame would only be its context, and none of its output would be kept.
        """
        return range(0, frames - 1, self.time.stride) if frames > self.time.tile else range(1)

    def space_starts(self, height: int, width: int) -> tuple[range, range]:
        if max(height, width) <= self.space.tile:
            return range(1), range(1)
        return range(0, height, self.space.stride), range(0, width, self.space.stride)

    def count(self, frames: int, height: int, width: int) -> int:
        rows, cols = self.space_starts(height, width)
        return len(self.time_starts(frames)) * len(rows) * len(cols)


def tiled(function: TileFunction, x: Tensor, tiling: Tiling) -> Iterator[Tensor]:
    """`function` over [B,C,T,H,W] tile by tile: yields consecutive fp32 chunks of the result along T.

    Every temporal tile but the first takes one more frame of context in front, whose result is dropped: the causal VAE
    treats the first frame it sees alone.
    """
    starts = tiling.time_starts(x.shape[2])
    tail: Tensor | None = None
    for start, clip in zip(starts, _clips(x, tiling), strict=True):
        tile = _spatially_tiled(function, clip, tiling)
        if start > 0:
            tile = tile[:, :, 1:]
        if tail is not None:
            _blend(tail, tile, tiling.time.blend, dim=2)
        if start == starts[-1]:
            keep = tile.shape[2]
        else:
            keep = tiling.time.keep + (start == 0)
            tail = tile[:, :, -tiling.time.blend :].clone()
        yield tile[:, :, :keep]


def input_tiles(x: Tensor, tiling: Tiling) -> Iterator[Tensor]:
    """What `tiled` calls its function with, in its order."""
    tops, lefts = tiling.space_starts(x.shape[3], x.shape[4])
    for clip in _clips(x, tiling):
        for top in tops:
            for left in lefts:
                yield clip[..., top : top + tiling.space.tile, left : left + tiling.space.tile]


def _clips(x: Tensor, tiling: Tiling) -> Iterator[Tensor]:
    """The temporal tiles of the input."""
    starts = tiling.time_starts(x.shape[2])
    for start in starts:
        yield x if len(starts) == 1 else x[:, :, start : start + tiling.time.tile + 1]


def _spatially_tiled(function: TileFunction, x: Tensor, tiling: Tiling) -> Tensor:
    """One temporal tile: its spatial tiles blended downwards, then to the right, and joined."""
    tops, lefts = tiling.space_starts(x.shape[3], x.shape[4])
    if len(tops) == len(lefts) == 1:
        return function(x).float()
    size, keep, blend = tiling.space.tile, tiling.space.keep, tiling.space.blend
    above: list[Tensor] = []
    joined: list[Tensor] = []
    for top in tops:
        row: list[Tensor] = []
        for column, left in enumerate(lefts):
            tile = function(x[..., top : top + size, left : left + size]).float()
            if above:
                _blend(above[column], tile, blend, dim=3)
            if row:
                _blend(row[-1], tile, blend, dim=4)
            row.append(tile)
        joined.append(torch.cat([tile[..., :keep, :keep] for tile in row], dim=4))
        above = row
    return torch.cat(joined, dim=3)


def _blend(before: Tensor, after: Tensor, extent: int, *, dim: int) -> None:
    """Fades the end of `before` into the beginning of `after`, in place: weight k / extent for the k-th plane."""
    extent = min(before.shape[dim], after.shape[dim], extent)
    if extent == 0:
        return
    shape = [1] * after.ndim
    shape[dim] = extent
    weight = (torch.arange(extent, dtype=torch.float64) / extent).to(after).view(shape)
    fading = before.narrow(dim, before.shape[dim] - extent, extent)
    rising = after.narrow(dim, 0, extent)
    rising.copy_(fading * (1 - weight) + rising * weight)
