"""The passes over memory between the VAE's convolutions.

B C T H W. All but the convolutions is bound by memory: what counts is how often a value is read and written. Compiled
(`vae/compiled.py`), each of these functions reads and writes it once; eager torch makes several passes.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor

Positions: TypeAlias = tuple[Tensor, Tensor, Tensor]
"""Indices along T, H and W, int64."""


def row_moments(x: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and variance of each row of W values, fp32 [B,T,H,C]."""
    variance, mean = torch.var_mean(x.permute(0, 2, 3, 4, 1).float(), dim=3, correction=0)
    return mean, variance


def gather(out: Tensor, x: Tensor, positions: Positions) -> None:
    """`out` becomes `x` at `positions`."""
    out.copy_(_at(x, positions))


def gather_activated(out: Tensor, x: Tensor, positions: Positions, scale: Tensor, shift: Tensor) -> None:
    """`out` becomes SiLU(x * scale + shift) at `positions`, computed in fp32 and rounded once."""
    out.copy_(F.silu(_at(x, positions).float().mul_(scale).add_(shift), inplace=True))


def _at(x: Tensor, positions: Positions) -> Tensor:
    t, h, w = positions
    # Unsafe is without a check of every index: `vae/window.py` keeps them within the sides.
    return torch.ops.aten._unsafe_index.Tensor(x, [None, None, t[:, None, None], h[:, None], w])


@dataclass(frozen=True, slots=True, kw_only=True)
class Passes:
    """The functions above, or faster ones with the same results."""

    row_moments: Callable[[Tensor], tuple[Tensor, Tensor]] = row_moments
    gather: Callable[[Tensor, Tensor, Positions], None] = gather
    gather_activated: Callable[[Tensor, Tensor, Positions, Tensor, Tensor], None] = gather_activated


EAGER_PASSES = Passes()
