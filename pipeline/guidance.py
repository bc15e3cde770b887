"""The guidance branches of a request, from least to most conditioned.

    none   [prompt + identity]
    CFG    [negative + identity, prompt + identity]
    ip-CFG [negative + white, prompt + white, prompt + identity]

The velocity is v0 + guidance_scale * (v1 - v0) + ip_scale * (v2 - v1).
"""

from typing import Any

import torch
from torch import Tensor

from pipeline.conditioning.encoders import TextStates
from pipeline.transformer import Branch, compute_dtype


def unconditional_mask(mask: Tensor, image_tokens: int) -> Tensor:
    """[1,R] -> [1,R]: as many leading ones as the prompt has tokens.

    The negative branch therefore sees its text and only the first token of its (white) image.
    """
    kept = int(mask.sum()) - (image_tokens - 1)
    rewritten = mask.clone()
    rewritten[:, :kept] = 1
    rewritten[:, kept:] = 0
    return rewritten


def branches(
    transformer: Any,
    *,
    positive: TextStates,
    negative: TextStates | None,
    identity: Tensor,
    white: Tensor | None,
    image_tokens: int,
) -> list[Branch]:
    """`negative` None: no guidance; `white` None: no guidance by the identity. Latents [1,16,1,h,w], already scaled."""
    dtype = compute_dtype(transformer)
    full = _branch(positive, positive.mask, identity, dtype)
    if negative is None:
        return [full]
    mask = unconditional_mask(negative.mask, image_tokens)
    if white is None:
        return [_branch(negative, mask, identity, dtype), full]
    return [_branch(negative, mask, white, dtype), _branch(positive, positive.mask, white, dtype), full]


def _branch(text: TextStates, mask: Tensor, reference: Tensor, dtype: torch.dtype) -> Branch:
    return Branch(
        text=text.states.to(dtype),
        mask=mask,
        pooled=text.pooled.to(dtype),
        reference=reference,
        valid=int(mask.sum()),
    )
