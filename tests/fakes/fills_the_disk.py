"""Writes more than a small disk holds."""

from pathlib import Path

from server.generator.child.contract import OnLoading, Report
from server.generator.messages import Generate, Load, Working


class Renderer:
    model = "fake: fills the disk"

    def __init__(self, load: Load, on_loading: OnLoading) -> None:
        pass

    def render(self, job: Generate, report: Report) -> None:
        report(Working(stage="denoise", done=1, total=job.num_inference_steps))
        with Path(job.output).open("wb") as output:
            for _ in range(64):
                output.write(bytes(2**20))
                output.flush()
