"""What the blocks compute with beside the layers of the model: chosen when it is loaded, passed down from there."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from pipeline.attention.function import AttentionFunction, sdpa
from pipeline.fused.passes import EAGER_PASSES, Passes


@dataclass(frozen=True, slots=True, kw_only=True)
class Kernels:
    """`mlp_rows`: how many tokens go through an MLP at once, 0 for all. Fewer need less memory and more launches."""

    attention: AttentionFunction = sdpa
    passes: Passes = EAGER_PASSES
    mlp_rows: int = 0

    def in_rows(self, mlp: Callable[..., Tensor], *rows: Tensor) -> Tensor:
        """`mlp` of tensors [N,...], which treats each token by itself, over `mlp_rows` tokens at a time."""
        if not self.mlp_rows or len(rows[0]) <= self.mlp_rows:
            return mlp(*rows)
        parts = zip(*(tensor.split(self.mlp_rows) for tensor in rows), strict=True)
        return torch.cat([mlp(*part) for part in parts])


EAGER = Kernels()
"""torch's own attention and eager passes, all tokens at once."""
