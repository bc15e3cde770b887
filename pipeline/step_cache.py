"""Reuse of transformer blocks between denoising steps. A cache belongs to one request; branches do not share entries.

reference: after the reference's "deepcache" option. Fixed steps reuse everything before the last block.
first_block: every step computes the first block. Where its effect has changed little since the last full step, the
    effect of all blocks between the first and the last is taken from that step ("first block cache" of ParaAttention
    and diffusers). One decision for all branches and ranks: a mixture would be amplified by guidance. Some steps are
    full by schedule, so that a request can be resumed there with the same frames.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from pipeline.options import StepCacheName


def reference_schedule(steps: int) -> tuple[bool, ...]:
    """Which steps run in full. At 30 steps exactly the reference's: 0-10, 13, 16, 19, 22-29.

    Other counts keep its proportions: the first 11/30 and last 8/30 in full, every third in between.
    """
    start, end = -(-11 * steps // 30), -(-8 * steps // 30)
    return tuple(i < start or i >= steps - end or (i - start + 1) % 3 == 0 for i in range(steps))


def first_block_schedule(steps: int) -> tuple[bool, ...]:
    """Which steps run in full whatever has changed: the first and the last (as in TeaCache), every second one in the
    first quarter, where the picture is composed, and every third one after it: the reference, too, reuses two at most.
    """
    quarter = -(-steps // 4)
    return tuple(i == steps - 1 or (i % 2 == 0 if i < quarter else (i - quarter) % 3 == 0) for i in range(steps))


def full_steps(name: StepCacheName | None, steps: int) -> tuple[bool, ...]:
    """Which of `steps` run in full for certain under the cache of that name."""
    if name is None:
        return (True,) * steps
    if name == "reference":
        return reference_schedule(steps)
    if name == "first_block":
        return first_block_schedule(steps)
    raise ValueError(f"`step_cache` must be 'reference', 'first_block' or None, got {name!r}")


def can_start_at(step: int, full_steps: Sequence[bool]) -> bool:
    """Whether a run can begin or resume at this step: it exists and needs nothing of an earlier step."""
    return 0 <= step < len(full_steps) and full_steps[step]


@dataclass(frozen=True, slots=True)
class FirstBlock:
    """Image [1,n,C] and text [1,L,C] after the first block of one branch; `effect`: what it added to the image."""

    image: Tensor
    text: Tensor
    effect: Tensor

    def joined(self) -> Tensor:
        """[1,n+L,C]."""
        return torch.cat([self.image, self.text], dim=1)


class StepCache:
    """Keeps, per guidance branch, the input of the last block: [reference, video, text] after all others."""

    def __init__(self, full_steps: Sequence[bool]) -> None:
        self.full_steps = tuple(full_steps)
        self._trunks: dict[int, Tensor] = {}

    def shows_first_block(self, step: int) -> bool:  # noqa: ARG002 - of the cache below
        """Whether this step computes the first block apart from the others, because later ones are compared with it."""
        return False

    def recall(self, step: int, row: int, first: FirstBlock | None = None) -> Tensor | None:  # noqa: ARG002
        """The trunk to use at a cached step; None at a full one."""
        return None if self.full_steps[step] else self._trunks[row]

    def remember(self, step: int, row: int, trunk: Tensor, first: FirstBlock | None = None) -> None:  # noqa: ARG002
        """Keeps the trunk for as long as cached steps follow."""
        if self._may_reuse(step + 1):
            self._trunks[row] = trunk
        else:
            self._trunks.pop(row, None)

    def _may_reuse(self, step: int) -> bool:
        return step < len(self.full_steps) and not self.full_steps[step]


class FirstBlockCache(StepCache):
    """Keeps, per guidance branch, the effect of the first block and of all between it and the last: [1,n,C], [1,n+L,C].

    `threshold`: reuse where the effect of the first block has changed by less, relative to the last full step (L1);
    0 never does.
    """

    def __init__(self, full_steps: Sequence[bool], threshold: float, branches: int) -> None:
        super().__init__(full_steps)
        self._threshold = threshold
        self._branches = branches
        self._effects: dict[int, Tensor] = {}
        self.reused: list[int] = []  # steps

    def shows_first_block(self, step: int) -> bool:
        return self._may_reuse(step + 1)

    def undecided(self, step: int) -> bool:
        """Whether `decide` must be called for this step: it is not full by schedule."""
        return self._may_reuse(step)

    def decide(self, step: int, firsts: Mapping[int, FirstBlock], total: Callable[[Tensor], Tensor]) -> None:
        """Whether this step, which is not full by schedule, reuses: by the branch whose first block changed most.

        firsts: of the branches computed here; `total` adds up a tensor [branches,2] over all ranks.
        """
        sums = torch.zeros(self._branches, 2, dtype=torch.float64)
        for row, first in firsts.items():
            before = self._effects[row]
            sums[row] = torch.stack([_l1(first.effect - before), _l1(before)]).cpu()
        change, size = total(sums).unbind(1)
        if bool((change < self._threshold * size).all()):  # not with NaN
            self.reused.append(step)

    def recall(self, step: int, row: int, first: FirstBlock | None = None) -> Tensor | None:
        if first is None or step not in self.reused:
            return None
        return first.joined() + self._trunks[row]

    def remember(self, step: int, row: int, trunk: Tensor, first: FirstBlock | None = None) -> None:
        if not self._may_reuse(step + 1):
            self._effects.pop(row, None)
            self._trunks.pop(row, None)
        elif first is not None and step not in self.reused:
            self._effects[row] = first.effect
            self._trunks[row] = trunk - first.joined()


def _l1(x: Tensor) -> Tensor:
    return torch.linalg.vector_norm(x, ord=1, dtype=torch.float32)
