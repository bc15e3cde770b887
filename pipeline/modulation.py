"""Shifts, scales and gates of all blocks, computed before the first step.

The layers that make them hold a quarter of the transformer's weights (6.8 GB in bf16), and in a whole request they see
one vector for each step and branch: 60 by default, of which they make 133 MB. After that their weights are not needed.
C channels.
"""

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

from pipeline.components import AdaptiveNorm, DoubleBlock, SingleBlock, Transformer
from pipeline.memory.host_layers import HostLayer
from pipeline.memory.placement import onloaded


@dataclass(frozen=True, slots=True, kw_only=True)
class Modulation:
    """Of one forward. Double blocks: shift, scale, gate of the attention and of the MLP [6,C], for image and for text.
    Single blocks: shift, scale, gate [3,C]. Output layer: [2,C].
    """

    double: tuple[tuple[Tensor, Tensor], ...]
    single: tuple[Tensor, ...]
    out: Tensor


def modulations(transformer: Transformer, vecs: Sequence[Tensor]) -> list[Modulation]:
    """One for each conditioning vector [1,C]; each by itself, so that its bits do not depend on the others."""
    activated = [F.silu(vec) for vec in vecs]
    double = [
        _of_block(block, [block.norm1, block.norm1_context], activated) for block in transformer.transformer_blocks
    ]
    single = [_of_block(block, [block.norm], activated) for block in transformer.single_transformer_blocks]
    out = _parts(transformer.norm_out, activated)
    return [
        Modulation(
            double=tuple((image[index], text[index]) for image, text in double),
            single=tuple(parts[index] for (parts,) in single),
            out=out[index],
        )
        for index in range(len(vecs))
    ]


def _of_block(
    block: DoubleBlock | SingleBlock, norms: Sequence[AdaptiveNorm], vecs: Sequence[Tensor]
) -> list[list[Tensor]]:
    """For each norm, for each vector: [parts,C]."""
    on_host = all(isinstance(norm.linear, HostLayer) for norm in norms)
    with nullcontext() if on_host else onloaded(block):
        return [_parts(norm, vecs) for norm in norms]


def _parts(norm: AdaptiveNorm, vecs: Sequence[Tensor]) -> list[Tensor]:
    layer = norm.linear
    if isinstance(layer, HostLayer):
        layer = layer.copied_to(vecs[0].device)
    return [layer(vec).view(-1, vec.shape[1]) for vec in vecs]
