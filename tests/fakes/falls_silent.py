"""Logs three lines at once, reports three blocks, and says nothing more."""

import time

from server.generator.child.contract import OnLoading, Report
from server.generator.messages import Generate, Load, Log, Working


class Renderer:
    model = "fake: falls silent"

    def __init__(self, load: Load, on_loading: OnLoading) -> None:
        pass

    def render(self, job: Generate, report: Report) -> None:
        for line in ("one", "two", "three"):
            report(Log(message=line))
        report(Working(stage="denoise", done=3, total=job.num_inference_steps))
        time.sleep(3600)
