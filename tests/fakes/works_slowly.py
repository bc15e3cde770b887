"""Never finishes, but reports ten blocks a second: something to cancel."""

import itertools
import time

from server.generator.child.contract import OnLoading, Report
from server.generator.messages import Generate, Load, Log, Working


class Renderer:
    model = "fake: works slowly"

    def __init__(self, load: Load, on_loading: OnLoading) -> None:
        pass

    def render(self, job: Generate, report: Report) -> None:
        for block in itertools.count(1):
            report(Working(stage="denoise", done=block, total=10**6 * job.num_inference_steps))
            report(Log(message=f"block {block}"))
            time.sleep(0.1)
