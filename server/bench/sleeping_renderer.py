"""Generators for benchmarks of everything around the model: they sleep in blocks and write a small file."""

import time
from pathlib import Path
from typing import ClassVar

from server.generator.child.contract import OnLoading, Report
from server.generator.messages import Generate, Load, Log, Working

BLOCKS_PER_STEP = 5


class SleepingRenderer:
    """A step is five blocks of 20 ms."""

    model = "sleeping (benchmark)"
    block_s: ClassVar[float] = 0.02

    def __init__(self, load: Load, on_loading: OnLoading) -> None:
        """Nothing to load."""

    def render(self, job: Generate, report: Report) -> None:
        """Sleep, report every block, write a file."""
        total = job.num_inference_steps * BLOCKS_PER_STEP
        for block in range(total):
            time.sleep(self.block_s)
            report(Working(stage="denoise", done=block + 1, total=total))
            if (block + 1) % BLOCKS_PER_STEP == 0:
                report(Log(message=f"Denoising step {(block + 1) // BLOCKS_PER_STEP}/{job.num_inference_steps}"))
        Path(job.output).write_bytes(job.request_id.encode().ljust(100_000))


class HastyRenderer(SleepingRenderer):
    """A step is five blocks of 1 ms: for hundreds of jobs."""

    block_s = 0.001
