"""What a block does between its Linear layers and its attention: passes over memory that compute next to nothing.

Written operation by operation, so that every rounding is visible: fp32 inside, and rounded to the activations' dtype
where the model that was published rounds. Eager torch makes a pass of each operation, in place where it can; compiled,
a function is one pass. N tokens without a batch dimension, C channels, F channels of the MLP, H heads of D channels.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

EPS = 1e-6  # of all norms of the transformer


def modulate(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """LayerNorm without weights, then scaled and shifted: x [N,C], shift and scale [C] -> [N,C]. Rounded once."""
    normed = F.layer_norm(x.float(), x.shape[-1:], eps=EPS)
    return normed.mul_(1 + scale.float()).add_(shift.float()).to(x.dtype)


def rotate(x: Tensor, weight: Tensor, cos: Tensor, sin: Tensor, out: Tensor) -> None:
    """RMSNorm over each head, then RoPE: x [N,H,D], weight [D], cos and sin fp32 [N,D] -> into `out` [N,H,D].

    Rounded before the weight, after it, and at the end. Neighbouring channels are the pairs that are rotated.
    """
    wide = x.float()
    normed = (wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + EPS)).to(weight.dtype).mul_(weight)
    even, odd = normed.unflatten(-1, (-1, 2)).unbind(-1)
    turned = torch.stack([-odd, even], dim=-1).flatten(-2).float().mul_(sin[:, None])
    out.copy_(normed.float().mul_(cos[:, None]).add_(turned))


def gate(x: Tensor, gates: Tensor, update: Tensor) -> Tensor:
    """The residual connection: x and update [N,C], gates [C] -> x + gates * update, both operations rounded."""
    return (gates * update).add_(x)


def gelu_join(attended: Tensor, mlp: Tensor) -> Tensor:
    """What the output layer of a single block takes: attended [N,C], mlp [N,F] -> [N,C+F], GELU over the latter."""
    if torch.compiler.is_compiling():  # which makes one pass of it, and knows no `out`
        return torch.cat([attended, F.gelu(mlp, approximate="tanh")], dim=-1)
    channels = attended.shape[-1]
    joined = attended.new_empty(len(attended), channels + mlp.shape[-1])
    joined[:, :channels] = attended
    torch.ops.aten.gelu.out(mlp, approximate="tanh", out=joined[:, channels:])  # F.gelu would make a tensor between
    return joined


@dataclass(frozen=True, slots=True, kw_only=True)
class Passes:
    """The functions above, or faster ones with the same results."""

    modulate: Callable[[Tensor, Tensor, Tensor], Tensor] = modulate
    rotate: Callable[[Tensor, Tensor, Tensor, Tensor, Tensor], None] = rotate
    gate: Callable[[Tensor, Tensor, Tensor], Tensor] = gate
    gelu_join: Callable[[Tensor, Tensor], Tensor] = gelu_join


EAGER_PASSES = Passes()
