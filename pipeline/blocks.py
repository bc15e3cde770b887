"""The two kinds of transformer block, over the submodules of diffusers' blocks.

N image tokens (reference first, then video), L text tokens, C channels, H heads of D channels; no batch dimension.
Attention sees no mask: callers pass valid text only. Norms and modulation run in fp32, Linear layers in the dtype of
their weights, as under the autocast the model was trained and published with.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from pipeline.components import DoubleBlock, JointAttention, SingleBlock, WeightedLayer
from pipeline.fused.kernels import Kernels
from pipeline.memory.placement import onloaded

Rope = tuple[Tensor, Tensor]  # cos, sin: fp32 [rows, head dim]


def double_block(
    block: DoubleBlock,
    image: Tensor,
    text: Tensor,
    modulation: tuple[Tensor, Tensor],
    *,
    rope: Rope,
    kernels: Kernels,
) -> tuple[Tensor, Tensor]:
    """image [N,C], text [L,C], modulation of both [6,C] -> image, text. Rope has N+L rows; text is not rotated."""
    (shift1, scale1, gate1, shift2, scale2, gate2), text_modulation = (parts.unbind() for parts in modulation)
    text_shift1, text_scale1, text_gate1, text_shift2, text_scale2, text_gate2 = text_modulation
    passes = kernels.passes
    with onloaded(block):
        image_out, text_out = _joint_attention(
            block.attn,
            passes.modulate(image, shift1, scale1),
            passes.modulate(text, text_shift1, text_scale1),
            rope,
            kernels,
        )
        image = passes.gate(image, gate1, image_out)
        text = passes.gate(text, text_gate1, text_out)
        image = passes.gate(image, gate2, kernels.in_chunks(block.ff, passes.modulate(image, shift2, scale2)))
        text = passes.gate(text, text_gate2, block.ff_context(passes.modulate(text, text_shift2, text_scale2)))
    return image, text


def single_block(block: SingleBlock, x: Tensor, modulation: Tensor, *, rope: Rope, kernels: Kernels) -> Tensor:
    """x [N+L,C] = [image, text], modulation [3,C] -> x. Rope as above."""
    shift, scale, gate = modulation.unbind()
    passes = kernels.passes
    with onloaded(block):
        normed = passes.modulate(x, shift, scale)
        attended = _self_attention(block.attn, normed, rope, kernels)

        def out(attended: Tensor, normed: Tensor) -> Tensor:
            return block.proj_out(passes.gelu_join(attended, block.proj_mlp(normed)))

        return passes.gate(x, gate, kernels.in_chunks(out, attended, normed))


def _joint_attention(
    attn: JointAttention, image: Tensor, text: Tensor, rope: Rope, kernels: Kernels
) -> tuple[Tensor, Tensor]:
    """image [N,C], text [L,C] -> the same, after each has attended to both. Queries and keys are written once."""
    query = _rotated([(attn.to_q(image), attn.norm_q), (attn.add_q_proj(text), attn.norm_added_q)], attn, rope, kernels)
    key = _rotated([(attn.to_k(image), attn.norm_k), (attn.add_k_proj(text), attn.norm_added_k)], attn, rope, kernels)
    value = torch.cat([attn.to_v(image), attn.add_v_proj(text)])
    image_out, text_out = _attended(query, key, value, kernels).split([len(image), len(text)])
    return attn.to_out[0](image_out), attn.to_add_out(text_out)


def _self_attention(attn: JointAttention, x: Tensor, rope: Rope, kernels: Kernels) -> Tensor:
    """x [N,C] -> [N,C], not projected."""
    query = _rotated([(attn.to_q(x), attn.norm_q)], attn, rope, kernels)
    key = _rotated([(attn.to_k(x), attn.norm_k)], attn, rope, kernels)
    return _attended(query, key, attn.to_v(x), kernels)


def _rotated(
    parts: Sequence[tuple[Tensor, WeightedLayer]], attn: JointAttention, rope: Rope, kernels: Kernels
) -> Tensor:
    """Consecutive parts of the tokens [n,C], each with its norm -> [N,H,D], normed and rotated."""
    (cos, sin), heads, first = rope, attn.heads, parts[0][0]
    joint = first.new_empty(sum(len(x) for x, _ in parts), heads, first.shape[1] // heads)
    start = 0
    for x, norm in parts:
        rows = slice(start, start + len(x))
        with onloaded(norm):
            kernels.passes.rotate(x.unflatten(1, (heads, -1)), norm.weight, cos[rows], sin[rows], joint[rows])
        start = rows.stop
    return joint


def _attended(query: Tensor, key: Tensor, value: Tensor, kernels: Kernels) -> Tensor:
    """query and key [N,H,D], value [N,C] -> [N,C]."""
    value = value.view(query.shape)
    return kernels.attention(query[None], key[None], value[None])[0].flatten(1)
