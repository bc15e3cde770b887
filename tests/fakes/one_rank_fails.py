"""Two ranks, of which rank 1 fails as the first word of the prompt says while rank 0 waits for it for ever."""

import threading

from server.generator.child.contract import OutOfMemory, Report
from server.generator.messages import Generate, Working
from tests.fakes import renders_colour


class Renderer(renders_colour.Renderer):
    model = "fake: one rank fails"

    def render(self, job: Generate, report: Report) -> None:
        report(Working(stage="denoise", done=1, total=job.num_inference_steps))
        fault = job.prompt.split()[0]
        if fault == "BOTH_RAISE" or (fault == "RAISES" and self.load.rank == 1):
            raise RuntimeError("rank 1 cannot go on")
        if fault == "RUNS_OUT_OF_MEMORY" and self.load.generator.memory_plan == "auto":
            if self.load.rank == 1:
                raise OutOfMemory("CUDA out of memory: tried to allocate 5.3 GiB")
            threading.Event().wait()
        if fault == "RAISES":
            threading.Event().wait()
        if self.load.rank == 0:
            super().render(job, report)
