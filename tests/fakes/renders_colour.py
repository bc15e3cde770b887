"""A generator that works: writes a tiny real file in a few steps, without torch."""

import time
from pathlib import Path

from server.generator_process import Report
from server.messages import Generate, Load, Log, Working


class Renderer:
    model = "fake: renders a colour"

    def __init__(self, load: Load) -> None:
        self._load = load

    def render(self, job: Generate, report: Report) -> None:
        for step in range(job.num_inference_steps):
            time.sleep(0.02)
            report(Working(stage="denoise", done=step + 1, total=job.num_inference_steps))
            report(Log(message=f"Denoising step {step + 1}/{job.num_inference_steps}: 0.02 s"))
        Path(job.output).write_bytes(b"\0\0\0\x18ftypmp42" + job.request_id.encode() * 100)
