"""Which part of each forward this process computes. Here: all of it, as one device does."""

from torch import Tensor

from pipeline.blocks import Rope


class Share:
    """Everything. `parallel/plan.py` has the share of one rank among several.

    rope: of the image tokens that are computed here, then of the longest text.
    """

    def __init__(self, rope: Rope) -> None:
        self.rope = rope

    def rows(self, branches: int) -> range:
        """Which of so many guidance branches are computed here."""
        return range(branches)

    def tokens(self, image: Tensor) -> Tensor:
        """The image tokens computed here: of [1,N,C], along N."""
        return image

    def joined(self, patches: Tensor) -> Tensor:
        """What was computed of each image token, everywhere: [1,N,C]."""
        return patches

    def predictions(self, own: list[Tensor]) -> list[Tensor]:
        """The velocities of all branches, from those computed here."""
        return own
