"""How long a running generation still takes, counted in blocks and tiles: one step can take minutes."""

from collections.abc import Callable
from dataclasses import dataclass, field

from pipeline.progress import Progress, Stage


@dataclass
class _StageTime:
    started: float
    seconds_per_unit: float | None = None
    left: int = 0


@dataclass
class Eta:
    """Estimate of one request; `learned` carries seconds per unit from earlier requests of the same process.

    Nothing is known of the decode until one has been measured: the first estimate of a process says so.
    """

    clock: Callable[[], float]
    learned: dict[Stage, float] = field(default_factory=dict)
    decode_units: int = 0
    _stages: dict[Stage, _StageTime] = field(default_factory=dict)

    def update(self, progress: Progress) -> None:
        """Take one finished unit into account."""
        now = self.clock()
        stage = self._stages.setdefault(progress.stage, _StageTime(now))
        stage.left = progress.total - progress.done
        if progress.done > 1:  # the first unit starts the clock: it may have waited for a compile
            stage.seconds_per_unit = (now - stage.started) / (progress.done - 1)
            self.learned[progress.stage] = stage.seconds_per_unit

    def seconds_left(self) -> float | None:
        """What is known of denoising and decoding; None before anything was measured."""
        denoise = self._stages.get("denoise")
        if denoise is None or denoise.seconds_per_unit is None:
            return None
        left = denoise.left * denoise.seconds_per_unit
        if "decode" not in self.learned:
            return left or None
        decode = self._stages.get("decode")
        return left + (self.decode_units if decode is None else decode.left) * self.learned["decode"]

    def describe(self) -> str:
        """The same for the job's log; empty before anything was measured."""
        left = self.seconds_left()
        if left is None:
            return ""
        return f"about {left:.0f} s left" if "decode" in self.learned else f"about {left:.0f} s and the decoding left"
