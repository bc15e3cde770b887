"""The guidance branches of a request, from least to most conditioned.

    none   [prompt + identity]
    CFG    [negative + identity, prompt + identity]
    ip-CFG [negative + white, prompt + white, prompt + identity]

The velocity is v0 + guidance_scale * (v1 - v0) + ip_scale * (v2 - v1).
"""

import torch
from torch import Tensor

from pipeline.components import Transformer
from pipeline.conditioning.encode import Conditions
from pipeline.conditioning.encoders import TextStates
from pipeline.transformer import Branch, compute_dtype


def unconditional_mask(mask: Tensor, image_tokens: int) -> Tensor:
    """[1,R] -> [1,R]: as many leading ones as the prompt has tokens.

    The negative branch therefore attends to its text and to the first token of its (white) image only, as in the
    reference.
    """
    kept = int(mask.sum()) - (image_tokens - 1)
    rewritten = mask.clone()
    rewritten[:, :kept] = 1
    rewritten[:, kept:] = 0
    return rewritten


def branches(transformer: Transformer, given: Conditions, *, image_tokens: int) -> list[Branch]:
    """One branch without guidance, two with it, three with guidance by the identity as well."""
    dtype, positive, negative = compute_dtype(transformer), given.positive, given.negative
    full = _branch(positive, positive.mask, given.identity, dtype)
    if negative is None:
        return [full]
    mask = unconditional_mask(negative.mask, image_tokens)
    if given.white is None:
        return [_branch(negative, mask, given.identity, dtype), full]
    return [_branch(negative, mask, given.white, dtype), _branch(positive, positive.mask, given.white, dtype), full]


def _branch(text: TextStates, mask: Tensor, reference: Tensor, dtype: torch.dtype) -> Branch:
    return Branch(
        text=text.states.to(dtype),
        mask=mask,
        pooled=text.pooled.to(dtype),
        reference=reference,
        valid=int(mask.sum()),
    )
