"""Whether an attention function computes attention, and how fast."""

import time
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

from pipeline.attention.function import AttentionFunction, sdpa

_LENGTHS: Final = (384, 397)  # whole tiles of a kernel; and some tokens more, not even a multiple of 2


@dataclass(frozen=True, kw_only=True)
class Heads:
    """How a model calls its attention function."""

    count: int
    width: int
    dtype: torch.dtype
    device: torch.device

    def drawn(self, tokens: int) -> list[Tensor]:
        """q, k, v [1, tokens, count, width]; always the same ones, and the global generator is left alone."""
        shape = (3, 1, tokens, self.count, self.width)
        return list(torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(self.device, self.dtype))


def worst_row(function: AttentionFunction, heads: Heads) -> float:
    """The largest error of one token's result in one head, as a share of its length, against SDPA in fp32.

    Raises whatever `function` raises, and ValueError for a result of another shape or dtype.
    """
    worst = 0.0
    for tokens in _LENGTHS:
        q, k, v = heads.drawn(tokens)
        out, exact = function(q, k, v), sdpa(q.float(), k.float(), v.float())
        if (out.shape, out.dtype) != (q.shape, q.dtype):
            raise ValueError(f"the result for {list(q.shape)} of {q.dtype} is {list(out.shape)} of {out.dtype}")
        error = (out.float() - exact).norm(dim=-1) / exact.norm(dim=-1)
        worst = max(worst, error.nan_to_num(nan=float("inf")).max().item())
    return worst


def teraflops(function: AttentionFunction, heads: Heads, *, tokens: int) -> float:
    """The rate of one call, the best of three after a first one: 4 N^2 H D operations."""
    q, k, v = heads.drawn(tokens)
    seconds = []
    for _ in range(4):
        started = time.perf_counter()
        function(q, k, v)
        if heads.device.type == "cuda":
            torch.cuda.synchronize(heads.device)
        seconds.append(time.perf_counter() - started)
    return 4e-12 * tokens**2 * heads.count * heads.width / min(seconds[1:])
