"""Rotary positions of the reference frame and the video ("timecat-w" in the reference implementation)."""

from collections.abc import Sequence

import torch
from diffusers.models.embeddings import get_1d_rotary_pos_embed

from pipeline.shapes import TokenGrid


def rotary_tables(
    grid: TokenGrid, axes_dim: Sequence[int], theta: float, *, text_rows: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """cos, sin: fp32 [(1 + T) * H * W + text_rows, sum(axes_dim)], in the order [reference, video, text].

    Video tokens sit at (t, y, x). The reference frame is placed before them in time, at t = -1, and beside them in
    space: its columns continue after the video's width. Text is not rotated: its rows are cos 1, sin 0.
    Always computed on the CPU, so that every device rotates by the same bits.
    """
    video = torch.cartesian_prod(*(torch.arange(n) for n in (grid.frames, grid.height, grid.width)))
    reference = torch.cartesian_prod(
        torch.tensor([-1]), torch.arange(grid.height), torch.arange(grid.width, 2 * grid.width)
    )
    positions = torch.cat([reference, video]).float()
    axes = [get_1d_rotary_pos_embed(dim, positions[:, axis], theta, use_real=True) for axis, dim in enumerate(axes_dim)]
    cos, sin = (torch.cat(parts, dim=1) for parts in zip(*axes, strict=True))
    text = torch.ones(text_rows, cos.shape[1])
    return torch.cat([cos, text]), torch.cat([sin, torch.zeros_like(text)])
