"""What the blocks compute with beside the layers of the model: chosen when it is loaded, passed down from there."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from pipeline.attention.function import AttentionFunction, sdpa
from pipeline.fused.passes import EAGER_PASSES, Passes
from pipeline.options import MLP_CHUNK


@dataclass(frozen=True, slots=True, kw_only=True)
class Kernels:
    """`mlp_chunk`: how many tokens go through an MLP at once, 0 for all. Its hidden layer is the largest tensor of a
    forward: 1.5 GB for 61,000 tokens in bf16, and in single blocks 1.9 GB more where the attention is put beside it.
    """

    attention: AttentionFunction = sdpa
    passes: Passes = EAGER_PASSES
    mlp_chunk: int = MLP_CHUNK

    def in_chunks(self, mlp: Callable[..., Tensor], *rows: Tensor) -> Tensor:
        """`mlp` of tensors [N,...], which treats each token by itself, over `mlp_chunk` tokens at a time."""
        if not self.mlp_chunk or len(rows[0]) <= self.mlp_chunk:
            return mlp(*rows)
        parts = zip(*(tensor.split(self.mlp_chunk) for tensor in rows), strict=True)
        return torch.cat([mlp(*part) for part in parts])


EAGER = Kernels()
"""torch's own attention and eager passes, all tokens at once."""
