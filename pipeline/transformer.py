"""The forward of HunyuanCustom over diffusers' `HunyuanVideoTransformer3DModel`, one guidance branch at a time.

B = 1, C hidden channels, N image tokens = reference + video, L text tokens, D text width. Split in two: `trunk` runs
all blocks but the last, `head` the last block and the output layer, because the step cache repeats the head alone.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from pipeline.blocks import Rope, double_block, modulation, single_block
from pipeline.components import Transformer
from pipeline.fused.kernels import Kernels
from pipeline.share import Share

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


def compute_dtype(transformer: Transformer) -> torch.dtype:
    """The dtype activations run in. Not `transformer.dtype`: that may name the storage of quantised weights."""
    return transformer.x_embedder.proj.weight.dtype


def patchify(transformer: Transformer, latents: Tensor) -> Tensor:
    """[1,16,T,h,w] -> [1,T*H*W,C]."""
    return transformer.x_embedder(latents.to(compute_dtype(transformer)))


def conditioning_vector(transformer: Transformer, timestep: Tensor, branch: Branch) -> Tensor:
    """[1,C]: timestep (0..1000) and pooled prompt. Reference tokens use it too: there is no clean-frame timestep."""
    return transformer.time_text_embed(timestep, branch.pooled)[0]


def trunk(
    transformer: Transformer,
    latents: Tensor,
    *,
    timestep: Tensor,
    vec: Tensor,
    branch: Branch,
    share: Share,
    kernels: Kernels,
    on_block: OnBlock,
) -> Tensor:
    """All blocks but the last: latents [1,16,T,h,w] -> [1,N+L,C], ordered [reference, video, text]."""
    image = share.tokens(patchify(transformer, torch.cat([branch.reference, latents], dim=2)))
    # The refiner reads the mask position by position, padding rows included; afterwards only its sum counts, and
    # cropping to it makes a mask in the joint attention unnecessary.
    text = transformer.context_embedder(branch.text, timestep, branch.mask)[:, : branch.valid]
    image, text = image[0], text[0]
    rope = _rows(share.rope, len(image) + len(text))
    for double in transformer.transformer_blocks:
        image, text = double_block(double, image, text, vec, rope=rope, kernels=kernels)
        on_block()
    x = torch.cat([image, text])
    for single in transformer.single_transformer_blocks[:-1]:
        x = single_block(single, x, vec, rope=rope, kernels=kernels)
        on_block()
    return x[None]


def head(
    transformer: Transformer,
    x: Tensor,
    *,
    vec: Tensor,
    branch: Branch,
    share: Share,
    kernels: Kernels,
    size: torch.Size,
    on_block: OnBlock,
) -> Tensor:
    """The last block and the output layer: [1,N+L,C] -> velocity fp32 of `size` [1,16,T,h,w]."""
    rows = single_block(
        transformer.single_transformer_blocks[-1], x[0], vec, rope=_rows(share.rope, x.shape[1]), kernels=kernels
    )
    on_block()
    per_frame = branch.reference[0, 0].numel() // transformer.config.patch_size**2
    image = rows[: len(rows) - branch.valid]
    scale, shift = modulation(transformer.norm_out, vec)  # in this order: diffusers swaps them, unlike in the blocks
    patches = share.joined(transformer.proj_out(kernels.passes.modulate(image, shift, scale))[None])
    return unpatchify(transformer, patches[:, per_frame:], size).float()


def unpatchify(transformer: Transformer, patches: Tensor, size: torch.Size) -> Tensor:
    """[1,T*H*W,16*pt*p*p] -> [1,16,T,h,w]; a token's vector is laid out as (c, pt, p, p)."""
    p, pt = transformer.config.patch_size, transformer.config.patch_size_t
    batch, channels, frames, height, width = size
    x = patches.reshape(batch, frames // pt, height // p, width // p, channels, pt, p, p)
    return x.permute(0, 4, 1, 5, 2, 6, 3, 7).reshape(size)


def _rows(rope: Rope, count: int) -> Rope:
    return rope[0][:count], rope[1][:count]
