"""Which part of each forward this process computes: with one device all of it.

The interface between the transformer and `parallel/plan.py`, which has the share of one rank among several.
"""

from torch import Tensor

from pipeline.attention.function import AttentionFunction
from pipeline.blocks import Rope


class Share:
    """Everything. `rope`: for the image tokens that are computed here, then for the longest text."""

    def __init__(self, rope: Rope) -> None:
        self.rope = rope

    def rows(self, branches: int) -> range:
        """Indices of the guidance branches that are computed here."""
        return range(branches)

    def tokens(self, image: Tensor) -> Tensor:
        """[1,N,C] -> [1,n,C]: the image tokens computed here."""
        return image

    def joined(self, patches: Tensor) -> Tensor:
        """[1,n,C] -> [1,N,C]: the results for all image tokens, from every process."""
        return patches

    def attention(self, function: AttentionFunction) -> AttentionFunction:
        """The same function for the tokens computed here, which attend to those of every process."""
        return function

    def predictions(self, own: list[Tensor]) -> list[Tensor]:
        """The velocities of all branches, from those computed here."""
        return own

    def total(self, here: Tensor) -> Tensor:
        """Sums on the CPU over what is computed here -> over everything, with the same bits in every process."""
        return here
