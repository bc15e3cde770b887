"""Attention as a function, and the default one."""

from collections.abc import Callable
from typing import TypeAlias

import torch.nn.functional as F
from torch import Tensor

AttentionFunction: TypeAlias = Callable[[Tensor, Tensor, Tensor], Tensor]
"""q, k, v [1, N, heads, head_dim] -> [1, N, heads, head_dim]. No mask; the softmax is scaled by 1/sqrt(head_dim)."""


def sdpa(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """torch's `scaled_dot_product_attention`, which chooses the kernel itself."""
    return F.scaled_dot_product_attention(q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)).transpose(1, 2)
