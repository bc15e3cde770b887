"""Falls silent for ever, as a hung GPU does: it neither reports nor sees a cancel."""

import threading

from server.generator.child.contract import OnLoading, Report
from server.generator.messages import Generate, Load, Working


class Renderer:
    model = "fake: hangs"

    def __init__(self, load: Load, on_loading: OnLoading) -> None:
        pass

    def render(self, job: Generate, report: Report) -> None:
        report(Working(stage="denoise", done=1, total=job.num_inference_steps))
        threading.Event().wait()
