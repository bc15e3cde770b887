"""The guidance branches of a request, from least to most conditioned.

    none   [prompt + identity]
    CFG    [negative + identity, prompt + identity]
    ip-CFG [negative + white, prompt + white, prompt + identity]

The velocity is v0 + guidance_scale * (v1 - v0) + ip_scale * (v2 - v1).
"""

from typing import Any

from torch import Tensor

from pipeline.encoders import TextStates
from pipeline.memory import onloaded
from pipeline.transformer import Branch, compute_dtype, patchify


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
    with onloaded(transformer):
        reference = patchify(transformer, identity)
        full = _branch(transformer, positive, positive.mask, reference)
        if negative is None:
            return [full]
        mask = unconditional_mask(negative.mask, image_tokens)
        if white is None:
            return [_branch(transformer, negative, mask, reference), full]
        white_reference = patchify(transformer, white)
        return [
            _branch(transformer, negative, mask, white_reference),
            _branch(transformer, positive, positive.mask, white_reference),
            full,
        ]


def _branch(transformer: Any, text: TextStates, mask: Tensor, reference: Tensor) -> Branch:
    dtype = compute_dtype(transformer)
    return Branch(
        text=text.states.to(dtype),
        mask=mask,
        pooled=text.pooled.to(dtype),
        reference=reference,
        valid=int(mask.sum()),
    )
