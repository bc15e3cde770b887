"""Reuse of the trunk between denoising steps, after the reference's "deepcache" option.

A cache belongs to one request and holds one entry per guidance branch.
"""

from collections.abc import Sequence

from torch import Tensor

from pipeline.options import StepCacheName


def reference_schedule(steps: int) -> tuple[bool, ...]:
    """Which steps run in full. At 30 steps exactly the reference's: 0-10, 13, 16, 19, 22-29.

    Other counts keep its proportions: the first 11/30 and last 8/30 in full, every third in between.
    """
    start, end = -(-11 * steps // 30), -(-8 * steps // 30)
    return tuple(i < start or i >= steps - end or (i - start + 1) % 3 == 0 for i in range(steps))


def full_steps(name: StepCacheName | None, steps: int) -> tuple[bool, ...]:
    """Which of `steps` run in full under the cache of that name."""
    if name is None:
        return (True,) * steps
    if name == "reference":
        return reference_schedule(steps)
    raise ValueError(f"`step_cache` must be 'reference' or None, got {name!r}")


def can_start_at(step: int, full_steps: Sequence[bool]) -> bool:
    """Whether a run can begin or resume at this step: it exists and needs no earlier step's trunk."""
    return 0 <= step < len(full_steps) and full_steps[step]


class StepCache:
    """Keeps, per guidance branch, the input of the last block: [reference, video, text] after all others."""

    def __init__(self, full_steps: Sequence[bool]) -> None:
        self.full_steps = tuple(full_steps)
        self._trunks: dict[int, Tensor] = {}

    def recall(self, step: int, row: int) -> Tensor | None:
        """The trunk to use at a cached step; None at a full one."""
        return None if self.full_steps[step] else self._trunks[row]

    def remember(self, step: int, row: int, trunk: Tensor) -> None:
        """Keeps the trunk for as long as cached steps follow."""
        if step + 1 < len(self.full_steps) and not self.full_steps[step + 1]:
            self._trunks[row] = trunk
        else:
            self._trunks.pop(row, None)
