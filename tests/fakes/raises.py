"""Raises in the middle of the work, as a model error does."""

from server.generator.child.contract import OnLoading, Report
from server.generator.messages import Generate, Load, Working


class Renderer:
    model = "fake: raises"

    def __init__(self, load: Load, on_loading: OnLoading) -> None:
        pass

    def render(self, job: Generate, report: Report) -> None:
        report(Working(stage="denoise", done=1, total=job.num_inference_steps))
        raise RuntimeError(f"secret detail about {job.prompt}")
