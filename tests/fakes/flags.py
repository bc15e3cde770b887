"""Flags the request when its files are there: where, the second word of the prompt says."""

from pathlib import Path
from typing import get_args

from pipeline.safety.flagged import Flagged, Where
from server.generator.child.contract import OnLoading, Report
from server.generator.messages import Generate, Load, Working


class Renderer:
    model = "fake: flags"

    def __init__(self, load: Load, on_loading: OnLoading) -> None:
        pass

    def render(self, job: Generate, report: Report) -> None:
        report(Working(stage="denoise", done=1, total=job.num_inference_steps))
        for written in (job.output, job.checkpoint, job.cut_out):
            Path(written).write_bytes(b"must not be kept")
        where: dict[str, Where] = {place: place for place in get_args(Where)}
        raise Flagged(where[job.prompt.split()[1]], "the fake says so")
