"""The forward of HunyuanCustom over diffusers' `HunyuanVideoTransformer3DModel`, one guidance branch at a time.

B = 1, C hidden channels, N image tokens = reference + video, L text tokens, D text width. Split in two: `trunk` runs
all blocks but the last, `head` the last block and the output layer, because the step cache repeats the head alone.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from pipeline.blocks import Rope, double_block, single_block
from pipeline.components import Transformer
from pipeline.fused.kernels import Kernels
from pipeline.modulation import Modulation
from pipeline.share import Share
from pipeline.step_cache import FirstBlock

OnBlock = Callable[[], None]


@dataclass(frozen=True, slots=True)
class Branch:
    """What one guidance branch is conditioned on; fixed for the whole request.

    text [1,R,D] and mask [1,R] of equal length; pooled [1,P]; reference [1,16,1,h,w]: the identity's latent frame;
    valid: how many text rows take part in joint attention (the sum of the mask, whatever its positions).
    """

    text: Tensor
    mask: Tensor
    pooled: Tensor
    reference: Tensor
    valid: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """How the forwards of a request are computed in this process. `on_block` is called after each block."""

    share: Share
    kernels: Kernels
    on_block: OnBlock


def compute_dtype(transformer: Transformer) -> torch.dtype:
    """The dtype activations run in. Not `transformer.dtype`: that may name the storage of quantised weights."""
    return transformer.x_embedder.proj.weight.dtype


def patchify(transformer: Transformer, latents: Tensor) -> Tensor:
    """[1,16,T,h,w] -> [1,T*H*W,C], contiguous: the convolution leaves the channels outermost."""
    return transformer.x_embedder(latents.to(compute_dtype(transformer))).contiguous()


def conditioning_vector(transformer: Transformer, timestep: Tensor, branch: Branch) -> Tensor:
    """[1,C]: timestep (0..1000) and pooled prompt. Reference tokens use it too: there is no clean-frame timestep."""
    return transformer.time_text_embed(timestep, branch.pooled)[0]


def first_block(
    transformer: Transformer,
    latents: Tensor,
    text: Tensor,
    *,
    modulation: Modulation,
    branch: Branch,
    context: Context,
) -> FirstBlock:
    """The beginning of `trunk`, for the step cache: latents [1,16,T,h,w], refined text [1,L,C] through one block."""
    entered = _image(transformer, latents, branch, context)
    rope = _rows(context.share.rope, len(entered) + text.shape[1])
    block, parts = transformer.transformer_blocks[0], modulation.double[0]
    image, after = double_block(block, entered, text[0], parts, rope=rope, kernels=context.kernels)
    context.on_block()
    return FirstBlock(image[None], after[None], (image - entered)[None])


def trunk(
    transformer: Transformer,
    latents: Tensor,
    text: Tensor,
    *,
    modulation: Modulation,
    branch: Branch,
    context: Context,
    first: FirstBlock | None = None,
) -> Tensor:
    """All blocks but the last: latents [1,16,T,h,w], refined text [1,L,C] -> [1,N+L,C]: [reference, video, text].

    `first`: what the first block made of them, if it was computed already.
    """
    image, text = _image(transformer, latents, branch, context) if first is None else first.image[0], text[0]
    rope = _rows(context.share.rope, len(image) + len(text))
    doubles = list(zip(transformer.transformer_blocks, modulation.double, strict=True))
    for double, parts in doubles[0 if first is None else 1 :]:
        image, text = double_block(double, image, text, parts, rope=rope, kernels=context.kernels)
        context.on_block()
    x = torch.cat([image, text])
    del image, text  # a copy of all tokens less while the other blocks run
    for single, own in zip(transformer.single_transformer_blocks[:-1], modulation.single[:-1], strict=True):
        x = single_block(single, x, own, rope=rope, kernels=context.kernels)
        context.on_block()
    return x[None]


def head(
    transformer: Transformer,
    x: Tensor,
    *,
    modulation: Modulation,
    branch: Branch,
    context: Context,
    size: torch.Size,
) -> Tensor:
    """The last block and the output layer: [1,N+L,C] -> velocity fp32 of `size` [1,16,T,h,w]."""
    last, rope = transformer.single_transformer_blocks[-1], _rows(context.share.rope, x.shape[1])
    rows = single_block(last, x[0], modulation.single[-1], rope=rope, kernels=context.kernels)
    context.on_block()
    per_frame = branch.reference[0, 0].numel() // transformer.config.patch_size**2
    image = rows[: len(rows) - branch.valid]
    scale, shift = modulation.out  # in this order: diffusers swaps them, unlike in the blocks
    patches = context.share.joined(transformer.proj_out(context.kernels.passes.modulate(image, shift, scale))[None])
    return unpatchify(transformer, patches[:, per_frame:], size).float()


def unpatchify(transformer: Transformer, patches: Tensor, size: torch.Size) -> Tensor:
    """[1,T*H*W,16*pt*p*p] -> [1,16,T,h,w]; a token's vector is laid out as (c, pt, p, p)."""
    p, pt = transformer.config.patch_size, transformer.config.patch_size_t
    batch, channels, frames, height, width = size
    x = patches.reshape(batch, frames // pt, height // p, width // p, channels, pt, p, p)
    return x.permute(0, 4, 1, 5, 2, 6, 3, 7).reshape(size)


def _image(transformer: Transformer, latents: Tensor, branch: Branch, context: Context) -> Tensor:
    """[n,C]: the image tokens computed here, as they enter the first block."""
    return context.share.tokens(patchify(transformer, torch.cat([branch.reference, latents], dim=2)))[0]


def _rows(rope: Rope, count: int) -> Rope:
    return rope[0][:count], rope[1][:count]
