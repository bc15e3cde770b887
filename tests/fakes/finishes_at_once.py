"""Needs no time: for races and long lines."""

from pathlib import Path

from server.generator.child.contract import OnLoading, Report
from server.generator.messages import Generate, Load, Working


class Renderer:
    model = "fake: finishes at once"

    def __init__(self, load: Load, on_loading: OnLoading) -> None:
        pass

    def render(self, job: Generate, report: Report) -> None:
        report(Working(stage="denoise", done=1, total=job.num_inference_steps))
        Path(job.output).write_bytes(b"not a video, but a file: " + job.request_id.encode())
