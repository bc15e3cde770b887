"""What the pipeline reports while it works. No torch here: the values are used in processes that never load it."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, TypeAlias

Stage: TypeAlias = Literal["expand", "encode", "denoise", "decode"]


@dataclass(frozen=True, slots=True)
class Progress:
    """One finished unit of work: a token that LLaVA wrote (expand), an encoder pass or VAE tile (encode), a transformer
    block (denoise), a tile (decode). `expand` may end before its total: LLaVA decides how much it writes.

    Steps would be too coarse: one takes up to minutes at full size, and a cancel must not wait for it.
    """

    stage: Stage
    done: int
    total: int


# Called after every unit; an exception it raises ends the generation and reaches the caller.
ProgressCallback: TypeAlias = Callable[[Progress], None]


class StageProgress:
    """Counts the units of one stage and reports each."""

    def __init__(self, stage: Stage, total: int, callback: ProgressCallback | None) -> None:
        self.stage: Stage = stage
        self.total = total
        self.done = 0
        self._callback = callback

    def advance(self) -> None:
        self.done += 1
        if self._callback is not None:
            self._callback(Progress(self.stage, self.done, self.total))
