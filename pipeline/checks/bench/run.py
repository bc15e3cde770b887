"""The stages in order, each on its own: what one cannot do is a row, and the others go on."""

import json
import platform
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path

import torch

from pipeline.checks.bench.ceilings import ceilings
from pipeline.checks.bench.decode import decode
from pipeline.checks.bench.encode import encode
from pipeline.checks.bench.options import options
from pipeline.checks.bench.plan import BenchPlan, Stage
from pipeline.checks.bench.plot import plot
from pipeline.checks.bench.reuse import reuse
from pipeline.checks.bench.shares import shares
from pipeline.checks.bench.step import step
from pipeline.checks.bench.stopwatch import OUT_OF_TIME, Stopwatch
from pipeline.checks.bench.subject import Request, Subject
from pipeline.checks.bench.table import Row, as_json
from pipeline.fused.fallback import one_line
from pipeline.shapes import PixelShape

_REUSE_FRAMES = 17  # of whole denoisings, one for each cache


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelBench:
    """The rows, and the machine they were measured on."""

    machine: dict[str, object]
    rows: list[Row]

    def json(self) -> str:
        return json.dumps({**self.machine, "rows": as_json(self.rows)}, indent=1) + "\n"

    def plot(self) -> str:
        """SVG of the time of a step against its tokens; "" where no step was measured."""
        return plot(self.rows, f"{self.machine['device']}, {self.machine['dtype']}")


def bench_model(
    plan: BenchPlan, *, say: Callable[[Row], None] = lambda _row: None, json_file: Path | None = None
) -> ModelBench:
    """Measure. As soon as a row is there, `say` is called with it and `json_file` is written again: a run that is ended
    from outside leaves what it has measured.
    """
    stopwatch = Stopwatch(plan.device, repeats=plan.repeats, limit_s=plan.limit_s)
    subject = Subject(plan.models, device=plan.device, dtype=plan.dtype, folder=plan.folder)
    measured = ModelBench(machine=_machine(plan), rows=[])
    for stage in plan.stages:
        for size in plan.sizes if stage == "step" else plan.sizes[:1]:
            for row in _guarded(stage, _stage(stage, plan, subject, size, stopwatch), stopwatch):
                measured.rows.append(row)
                say(row)
                if json_file is not None:
                    json_file.write_text(measured.json())
    return measured


def _stage(stage: Stage, plan: BenchPlan, subject: Subject, size: PixelShape, stopwatch: Stopwatch) -> Iterator[Row]:
    if stage == "decode":
        yield from decode(subject, size, stopwatch)
        return
    if stage == "encode":
        yield from encode(subject, size, stopwatch)
        return
    if stage == "reuse":
        size = replace(size, frames=min(size.frames, _REUSE_FRAMES))
    request = Request(subject, size, plan.text_rows)
    if stage == "reuse":
        yield from reuse(request, subject, stopwatch, steps=plan.steps)
        return
    if stage == "ceilings":
        yield from ceilings(request, subject.heads, stopwatch)
        return
    if stage == "options":
        yield from options(request, subject, stopwatch)
        return
    yield from {"step": step, "shares": shares}[stage](request, stopwatch)


def _guarded(stage: Stage, rows: Iterable[Row], stopwatch: Stopwatch) -> Iterator[Row]:
    if stopwatch.expired:
        yield Row(stage=stage, what="all of it", error=OUT_OF_TIME)
        return
    try:
        yield from rows
    except Exception as error:
        failure = one_line(error)
    else:
        return
    stopwatch.free()
    yield Row(stage=stage, what="all of it", error=failure)


def _machine(plan: BenchPlan) -> dict[str, object]:
    on_gpu = plan.device.type == "cuda"
    return {
        "device": torch.cuda.get_device_name(plan.device) if on_gpu else platform.processor() or platform.machine(),
        "threads": torch.get_num_threads(),
        "dtype": plan.dtype,
        "weights": str(plan.folder) if plan.folder else "random",
        "full_size": plan.models.full,
        "text_rows": list(plan.text_rows),
        "versions": {name: version(name) for name in ("torch", "diffusers", "transformers", "hunyuan-custom-server")},
        "cuda": torch.version.cuda if on_gpu else None,
        "cudnn": torch.backends.cudnn.version() if on_gpu else None,
    }
