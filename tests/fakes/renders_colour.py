"""Works: a few quick steps, then a small real MP4 of the requested size and a thumbnail, without torch.

Each kind of video is encoded once in a run of the tests, in the folder that `FAKE_VIDEOS` names, and copied after that:
encoding costs more than all the rest of a job.
"""

import os
import shutil
import time
from pathlib import Path

import numpy as np

from pipeline.mp4 import write_mp4
from server.generator.child.contract import OnLoading, Report
from server.generator.messages import Generate, Load, Log, Working
from tests.harness.pictures import webp

STEP_S = 0.02
_COLOURS = 4


class Renderer:
    model = "fake: renders a colour"

    def __init__(self, load: Load, on_loading: OnLoading) -> None:  # noqa: ARG002
        self.load = load

    def render(self, job: Generate, report: Report) -> None:
        for step in range(job.num_inference_steps):
            time.sleep(STEP_S)
            report(Working(stage="denoise", done=step + 1, total=job.num_inference_steps))
            report(
                Log(message=f"Denoising step {step + 1}/{job.num_inference_steps}: {STEP_S:.2f} s", step_seconds=STEP_S)
            )
        colour = job.seed % _COLOURS
        name = f"{job.width}x{job.height}-{job.num_frames}-{job.fps}-{colour}.mp4"
        encoded = Path(os.environ["FAKE_VIDEOS"]) / name
        if not encoded.exists():
            unfinished = encoded.with_name(f"{os.getpid()}-{name}")
            _encode(job, colour, unfinished)
            unfinished.replace(encoded)
        shutil.copyfile(encoded, job.output)
        if job.thumbnail is not None:
            Path(job.thumbnail).write_bytes(webp(colour))


def _encode(job: Generate, colour: int, path: Path) -> None:
    grey = np.full((1, 16, 16, 3), colour * (256 // _COLOURS), np.uint8)
    frames = (grey for _ in range(job.num_frames))
    write_mp4(frames, path, fps=job.fps, num_frames=job.num_frames, width=job.width, height=job.height, threads=1)
