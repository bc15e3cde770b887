"""The two kinds of transformer block, over the submodules of diffusers' blocks.

N image tokens (reference first, then video), L text tokens, C channels; batch 1. Attention sees no mask: callers pass
valid text only. Norms and modulation run in fp32, Linear layers in the dtype of their weights, as under the
autocast the model was trained and published with.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from pipeline.components import AdaptiveNorm, DoubleBlock, SingleBlock
from pipeline.memory.placement import onloaded

Rope = tuple[Tensor, Tensor]  # cos, sin: fp32 [rows, head dim]


def double_block(block: DoubleBlock, image: Tensor, text: Tensor, vec: Tensor, rope: Rope) -> tuple[Tensor, Tensor]:
    """image [1,N,C], text [1,L,C], vec [1,C] -> image, text. Rope covers the image tokens."""
    with onloaded(block):
        shift1, scale1, gate1, shift2, scale2, gate2 = modulation(block.norm1, vec, 6)
        text_shift1, text_scale1, text_gate1, text_shift2, text_scale2, text_gate2 = modulation(
            block.norm1_context, vec, 6
        )
        image_out, text_out = block.attn(
            hidden_states=modulated(image, shift1, scale1),
            encoder_hidden_states=modulated(text, text_shift1, text_scale1),
            image_rotary_emb=rope,
        )
        image = image + gate1 * image_out
        text = text + text_gate1 * text_out
        image = image + gate2 * block.ff(modulated(image, shift2, scale2))
        text = text + text_gate2 * block.ff_context(modulated(text, text_shift2, text_scale2))
    return image, text


def single_block(block: SingleBlock, x: Tensor, vec: Tensor, rope: Rope) -> Tensor:
    """x [1,N+L,C] = [image, text], vec [1,C] -> x. Rope covers all rows; text rows are not rotated."""
    with onloaded(block):
        shift, scale, gate = modulation(block.norm, vec, 3)
        normed = modulated(x, shift, scale)
        attended, _ = block.attn(hidden_states=normed, image_rotary_emb=rope)
        mlp = block.act_mlp(block.proj_mlp(normed))
        return x + gate * block.proj_out(torch.cat([attended, mlp], dim=2))


def modulation(norm: AdaptiveNorm, vec: Tensor, parts: int) -> tuple[Tensor, ...]:
    """`parts` x [1,1,C] of one adaptive norm: shift, scale, gate (twice in double blocks)."""
    return norm.linear(F.silu(vec)).unsqueeze(1).chunk(parts, dim=-1)


def modulated(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """LayerNorm without weights (eps 1e-6), scaled and shifted, in fp32; back in x's dtype."""
    normed = F.layer_norm(x.float(), x.shape[-1:], eps=1e-6)
    return (normed * (1 + scale.float()) + shift.float()).to(x.dtype)
