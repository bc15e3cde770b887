"""One request on several ranks: guidance branches on halves of them, the image tokens of a branch split within.

The transformer itself is unchanged: a `Share` says which branches and tokens this rank computes, and its attention
function exchanges tokens for heads (`parallel/ulysses.py`).
"""

from collections.abc import Sequence

import torch
import torch.distributed as dist
from torch import Tensor

from pipeline.attention.function import AttentionFunction
from pipeline.blocks import Rope
from pipeline.components import Transformer
from pipeline.parallel.ranks import Ranks
from pipeline.parallel.ulysses import TokenSplit
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


def sharing(transformer: Transformer, rope: Rope, branches: Sequence[Branch], ranks: Ranks | None) -> Share:
    """The share of this process in a request.

    Raises:
        ValueError: the heads cannot be shared by so many ranks.
    """
    if ranks is None:
        return Share(rope)
    check_heads(transformer, ranks.count, len(branches))
    return _RankShare(rope, len(rope[0]) - max(branch.valid for branch in branches), len(branches), ranks)


class _RankShare(Share):
    """One branch or all of them; all tokens or a part (`split`)."""

    def __init__(self, rope: Rope, image_tokens: int, branches: int, ranks: Ranks) -> None:
        together = ranks_per_branch(ranks.count, branches)
        halved = together < ranks.count
        self._ranks = ranks
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

    def attention(self, function: AttentionFunction) -> AttentionFunction:
        return function if self.split is None else self.split.attention(function)

    def predictions(self, own: list[Tensor]) -> list[Tensor]:
        if self._pair is None:
            return own
        (here,) = own
        both = here.new_empty(2, *here.shape[1:])
        dist.all_gather_single(both, here.contiguous(), group=self._pair)
        return list(both.split(1))

    def total(self, here: Tensor) -> Tensor:
        return self._ranks.total(here)
