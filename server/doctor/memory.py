"""What fits: every memory plan, for clips of several sizes, on a GPU and a machine of given memory."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from pipeline.memory.model_sizes import PUBLISHED, ModelSizes
from pipeline.memory.planner import CLIPS, LARGEST, SMALLEST, TODAY, Clip, Engine, Need, choose, lacks, need
from server.doctor.finding import Finding
from server.errors import SettingsError
from server.settings import MEMORY_PLANS, GeneratorSettings, MemoryPlan

_UNITS: Final = {"": 10**9, "GB": 10**9, "GIB": 2**30, "MB": 10**6, "MIB": 2**20}
_GB: Final = 10**9
_PAGE_CACHE: Final = 5 * _GB  # beside the weights, for the rest of the machine


def parse_memory(text: str, *, option: str) -> int:
    """Bytes of "80GB", "80 GiB", "81559MiB"; a bare number is GB.

    Raises:
        SettingsError: it is none of these.
    """
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([a-z]*)\s*", text, re.IGNORECASE)
    if found is None or found[2].upper() not in _UNITS or not float(found[1]):
        raise SettingsError(f"{option}: {text!r} is no amount of memory; write 80GB, 80GiB or 81559MiB")
    return int(float(found[1]) * _UNITS[found[2].upper()])


@dataclass(frozen=True, kw_only=True)
class MemoryTable:
    """`gpu` and `host` bytes that are free; `asked`: for a card that was named, not the one that is here."""

    model: ModelSizes
    gpu: int
    host: int
    asked: bool
    engine: Engine = TODAY

    def finding(self, generator: GeneratorSettings) -> Finding:
        """What the configured plan means here."""
        best = choose(self.model, gpu=self.gpu, host=self.host, engine=self.engine)
        wanted = generator.memory_plan
        if wanted == "auto" or self.asked:
            if best.fits:
                slow = self._slow(best.plan)
                return Finding("memory", "warning" if slow else "ok", best.reason, slow)
            refused = self._lacks(best.plan, SMALLEST)
            return Finding("memory", "problem" if refused else "warning", best.reason, "ask for smaller clips")
        fits = f"generator.memory_plan = {best.plan!r}"
        for clip, state in ((SMALLEST, "problem"), (LARGEST, "warning")):
            if reason := self._lacks(wanted, clip):
                return Finding("memory", "problem" if state == "problem" else "warning", f"{wanted!r} {reason}", fits)
        slow = self._slow(wanted)
        return Finding("memory", "warning" if slow else "ok", f"{wanted} holds {LARGEST}", slow)

    def _lacks(self, plan: MemoryPlan, clip: Clip) -> str | None:
        return lacks(self.model, plan, gpu=self.gpu, host=self.host, clip=clip, engine=self.engine)

    def _need(self, plan: MemoryPlan, clip: Clip) -> Need:
        return need(self.model, plan, clip, engine=self.engine)

    def _slow(self, plan: str) -> str:
        if plan == "stream_blocks" and self.host < self.model.total + _PAGE_CACHE:
            wanted = (self.model.total + _PAGE_CACHE) / _GB
            return f"with less than {wanted:.0f} GB of host memory weights are read from the disk at every step"
        return ""

    def lines(self) -> list[str]:
        """A row for each plan; `!` marks what does not fit."""
        head = f"{'plan':<17}" + "".join(f"{f'{clip.width}x{clip.height}x{clip.frames}':>15}" for clip in CLIPS)
        rows = []
        for plan in MEMORY_PLANS:
            needs = [self._need(plan, clip) for clip in CLIPS]
            cells = "".join(f"{_cell(one.peak, self.gpu):>15}" for one in needs)
            rows.append(f"{plan:<17}{cells}{_cell(needs[0].host, self.host):>12}")
        return [f"{head}{'host':>12}", *rows]

    def as_dict(self) -> dict[str, Any]:
        """Bytes by plan, clip, stage and term."""
        plans = {plan: [_details(self._need(plan, clip), clip) for clip in CLIPS] for plan in MEMORY_PLANS}
        return {"gpu_free": self.gpu, "host_free": self.host, "plans": plans}


def sizes_of(generator: GeneratorSettings) -> ModelSizes:
    """Of the configured model where it can be read, else of the published one."""
    try:
        return ModelSizes.of(Path(generator.model), generator.dtype, on_cpu=generator.device == "cpu")
    except (OSError, ValueError, LookupError, TypeError):
        return PUBLISHED


def _cell(needed: int, there: int) -> str:
    return f"{needed / _GB:.1f} GB{'!' if needed > there else ' '}"


def _details(one: Need, clip: Clip) -> dict[str, Any]:
    stages: dict[str, dict[str, int]] = {stage: dict(terms) for stage, terms in one.stages.items()}
    return {"clip": str(clip), "gpu": one.peak, "host": one.host, "stages": stages}
