"""Fits only once a smaller memory plan is in force."""

from server.generator.child.contract import OnLoading, OutOfMemory, Report
from server.generator.messages import Generate, Load, Working
from tests.fakes import renders_colour


class Renderer(renders_colour.Renderer):
    model = "fake: runs out of memory"

    def __init__(self, load: Load, on_loading: OnLoading) -> None:
        super().__init__(load, on_loading)
        self._plan = load.generator.memory_plan

    def render(self, job: Generate, report: Report) -> None:
        report(Working(stage="denoise", done=1, total=job.num_inference_steps))
        if self._plan in {"auto", "resident"} or job.prompt == "NEVER_FITS":
            raise OutOfMemory("CUDA out of memory: tried to allocate 5.3 GiB")
        super().render(job, report)
