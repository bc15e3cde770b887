"""One request on several ranks: guidance branches on halves of them, the image tokens of a branch split within.

The transformer itself is unchanged: for the duration of a request its attention has another processor
(`parallel/ulysses.py`), and a `Share` says which branches and tokens this rank computes.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
import torch.distributed as dist
from torch import Tensor

from pipeline.blocks import Rope
from pipeline.components import Transformer
from pipeline.parallel.ranks import Ranks
from pipeline.parallel.ulysses import TokenSplit, UlyssesProcessor
from pipeline.share import Share
from pipeline.transformer import Branch


def ranks_per_branch(count: int, branches: int) -> int:
    """Two branches are computed by one half of the ranks each, if their number is even. Otherwise all ranks compute one
    branch after another.
    """
    return count // 2 if branches == 2 and count % 2 == 0 else count


def check_heads(transformer: Transformer, ranks: int, branches: int) -> None:
    """Raises ValueError if so many ranks cannot share the attention heads of a request with so many branches."""
    heads, sharing = transformer.config.num_attention_heads, ranks_per_branch(ranks, branches)
    if heads % sharing:
        raise ValueError(f"{heads} attention heads cannot be shared by {sharing} ranks")


@contextmanager
def sharing(transformer: Transformer, rope: Rope, branches: Sequence[Branch], ranks: Ranks | None) -> Iterator[Share]:
    """The share of this process in a request; with several ranks, `transformer` computes as one of them until the end.

    Raises:
        ValueError: the heads cannot be shared by so many ranks.
    """
    if ranks is None:
        yield Share(rope)
        return
    check_heads(transformer, ranks.count, len(branches))
    share = _RankShare(rope, len(rope[0]) - max(branch.valid for branch in branches), len(branches), ranks)
    if share.split is None:
        yield share
        return
    attentions = [block.attn for block in transformer.transformer_blocks]
    attentions += [block.attn for block in transformer.single_transformer_blocks]
    whole = [attention.processor for attention in attentions]
    for attention in attentions:
        attention.set_processor(UlyssesProcessor(share.split, attention.processor._attention_backend))
    try:
        yield share
    finally:
        for attention, processor in zip(attentions, whole, strict=True):
            attention.set_processor(processor)


class _RankShare(Share):
    """One branch or all of them; all tokens or a part (`split`)."""

    def __init__(self, rope: Rope, image_tokens: int, branches: int, ranks: Ranks) -> None:
        together = ranks_per_branch(ranks.count, branches)
        halved = together < ranks.count
        self._pair = ranks.pair if halved else None
        self.split = TokenSplit(ranks.half if halved else ranks.all, image_tokens) if together > 1 else None
        cos, sin = (torch.cat([self.tokens(part[None, :image_tokens])[0], part[image_tokens:]]) for part in rope)
        super().__init__((cos, sin))

    def rows(self, branches: int) -> range:
        if self._pair is None:
            return range(branches)
        row = self._pair.rank()
        return range(row, row + 1)

    def tokens(self, image: Tensor) -> Tensor:
        return image if self.split is None else self.split.tokens(image)

    def joined(self, patches: Tensor) -> Tensor:
        return patches if self.split is None else self.split.joined(patches)

    def predictions(self, own: list[Tensor]) -> list[Tensor]:
        if self._pair is None:
            return own
        (here,) = own
        both = here.new_empty(2, *here.shape[1:])
        dist.all_gather_single(both, here.contiguous(), group=self._pair)
        return list(both.split(1))
