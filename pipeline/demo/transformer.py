"""Hand-set weights of the demo model's transformer: rules instead of training, so that its clip shows the photo.

The first double block fetches, for every token, the reference token of the same place by its RoPE position, tinted by
the pooled prompt. The second adds the slowest part of the noise, which grows into clouds of light that drift over the
clip. The output layer makes it the velocity that leads straight there, as a trained model's does:
(latents - target) / sigma. All other blocks run with their seeded random weights behind gates of zero.

Hidden channels: own picture, target picture, and anchors as in `demo/codec.py`, which keep LayerNorm linear.
"""

import torch
import torch.nn.functional as F
from diffusers import HunyuanVideoTransformer3DModel
from torch import nn

from pipeline.components import TransformerConfig
from pipeline.demo.codec import ANCHOR, COLOURS, PICTURE, zero

DRIFT = 3.3  # of what is smooth but not still in the noise: it grows with sigma ** (1 - DRIFT) while sigma falls
TINT = 0.015
RIDGE = 1e-7  # of the fit of 1/sigma: within 3 % in fp32, and weights small enough for 5 % in bf16

# Attention scores by distance along t, y, x: `sum amplitude * cos(frequency * distance - phase)`. For each axis the
# distance of the peak, and the amplitude of each RoPE frequency, fastest first. Both heads of a block have the same sum
# of amplitudes; it is what RMSNorm keeps.
Scores = tuple[tuple[float | None, tuple[float, ...]], ...]
EARLIEST = -torch.pi / 2  # the phase instead of a peak: scores fall from past to future
# The reference is the earliest frame and stands one grid width to the right: 14 tokens for 896x512 at a quarter. The
# fastest frequency nearly repeats after 6, which serves the widths 8 and 20 as well, but for a shifted picture.
REFERENCE: Scores = ((None, (0, 0, 0, 450)), (0, (24,) * 6), (14, (40, 4, 0, 0, 0, 0)))
NEARBY: Scores = ((0, (0, 2, 0, 0)), (0, (0, 0, 8, 0, 0, 0)), (0, (0, 0, 8, 0, 0, 2)))
ALWAYS: Scores = ((0, (0, 0, 0, 0)), (0, (0, 0, 8, 0, 0, 0)), (0, (0, 0, 8, 0, 0, 4)))


def set_transformer(transformer: HunyuanVideoTransformer3DModel) -> None:
    """Set a `HunyuanVideoTransformer3DModel` with two heads and two double blocks as described above."""
    config = transformer.config
    hidden, width = config.num_attention_heads * config.attention_head_dim, config.attention_head_dim
    patch = config.patch_size**2
    signal = PICTURE * patch
    own, target, anchors = slice(0, signal), slice(signal, 2 * signal), slice(2 * signal, hidden)
    heads = [slice(start, start + signal) for start in range(0, hidden, width)]
    keep, count = torch.eye(signal), hidden - 2 * signal
    norm = ANCHOR * (count / hidden) ** 0.5  # what LayerNorm divides by

    embed = transformer.x_embedder.proj
    zero(embed)
    embed.weight.view(hidden, -1)[own, :signal] = keep
    embed.bias[anchors] = ANCHOR * torch.tensor([1.0, -1.0]).repeat(count // 2)
    for block in transformer.single_transformer_blocks:
        zero(block.norm.linear)
    for block in transformer.transformer_blocks:
        for module in (block.norm1.linear, block.norm1_context.linear, block.attn.to_v, block.attn.to_out[0]):
            zero(module)

    fetch, drift = transformer.transformer_blocks
    _look_by_distance(fetch.attn, config, [REFERENCE, REFERENCE])
    _gate(fetch, hidden, 1.0)
    fetch.attn.to_v.weight[heads[0], own] = norm * keep
    fetch.attn.to_v.weight[heads[0], anchors] = -norm / count  # their mean is what LayerNorm took away
    fetch.attn.to_out[0].weight[target, heads[0]] = keep
    tint = TINT / norm * torch.randn(2, hidden).repeat_interleave(patch, dim=0)  # of Cb and Cr, by timestep and prompt
    fetch.norm1.linear.weight[signal - len(tint) : signal] = tint  # the shift: of all tokens, so of what is fetched

    # What is smooth in place and time, less what is smooth in place alone: the photo, which stays, is not in it.
    means = torch.zeros(PICTURE).index_fill(0, torch.tensor(COLOURS), 1 / patch)
    smooth = torch.kron(means.diag(), torch.ones(patch, patch))
    _look_by_distance(drift.attn, config, [NEARBY, ALWAYS])
    _gate(drift, hidden, DRIFT)
    for head, sign in zip(heads, (1.0, -1.0), strict=True):
        drift.attn.to_v.weight[head, own] = norm * smooth
        drift.attn.to_v.weight[head, target] = -norm * smooth
        drift.attn.to_out[0].weight[target, head] = sign * keep

    _divide_by_sigma(transformer)
    zero(transformer.proj_out)
    transformer.proj_out.weight[:signal, own] = norm * keep
    transformer.proj_out.weight[:signal, target] = -norm * keep


def _divide_by_sigma(transformer: HunyuanVideoTransformer3DModel) -> None:
    """Scale the output by 1/sigma: a ridge regression from what the timestep makes of half the conditioning vector.

    Only slow frequencies are smooth enough to be fitted; the prompt is kept out of that half.
    """
    embed, out = transformer.time_text_embed, transformer.norm_out.linear
    time = slice(0, out.in_features // 2)
    frequencies = embed.time_proj.num_channels // 2
    embed.timestep_embedder.linear_1.weight.view(-1, 2, frequencies)[:, :, : frequencies // 2] = 0  # from the fastest
    embed.text_embedder.linear_2.weight[time] = 0
    embed.text_embedder.linear_2.bias[time] = 0

    sigma = 1 / torch.linspace(1, 8, 200)
    seen = F.silu(embed.timestep_embedder(embed.time_proj(1000 * sigma)))[:, time]
    seen = (torch.cat([seen, torch.ones_like(sigma)[:, None]], dim=1) * sigma[:, None]).double()  # errors relative
    gram = seen.T @ seen / len(seen) + RIDGE * torch.eye(seen.shape[1], dtype=seen.dtype)
    *weight, bias = torch.linalg.solve(gram, seen.mean(0)).tolist()
    zero(out)
    scale = slice(0, out.out_features // 2)  # the first half; the second is the shift
    out.weight[scale, time] = torch.tensor(weight)
    out.bias[scale] = bias - 1


def _gate(block: nn.Module, hidden: int, value: float) -> None:
    """How much of its image attention a double block adds: the third of norm1's six parts."""
    block.norm1.linear.bias[2 * hidden : 3 * hidden] = value


def _look_by_distance(attention: nn.Module, config: TransformerConfig, heads: list[Scores]) -> None:
    """Constant queries and keys, so that the score of two image tokens depends on their RoPE distance alone."""
    queries, keys = [], []
    for scores in heads:
        for dim, (peak, amplitudes) in zip(config.rope_axes_dim, scores, strict=True):
            for index in range(dim // 2):
                frequency = config.rope_theta ** (-2 * index / dim)
                phase = torch.tensor(EARLIEST if peak is None else peak * frequency)
                root = amplitudes[index] ** 0.5
                queries.append(root * torch.stack([phase.cos(), phase.sin()]))
                keys.append(root * torch.tensor([1.0, 0.0]))
    for project, normalise, values in (
        (attention.to_q, attention.norm_q, torch.cat(queries)),
        (attention.to_k, attention.norm_k, torch.cat(keys)),
    ):
        zero(project)
        project.bias[:] = values
        # RMSNorm gives each head the length sqrt(dim); attention divides the score by sqrt(dim) more.
        length = values.view(len(heads), -1).norm(dim=1).mean()
        normalise.weight[:] = length / len(normalise.weight) ** 0.25
    zero(attention.add_k_proj)  # text scores 0
