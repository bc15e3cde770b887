"""Takes its parent along, as a driver that brings down the machine would."""

import os
import signal

from server.generator.child.contract import OnLoading, Report
from server.generator.messages import Generate, Load


class Renderer:
    model = "fake: kills the worker"

    def __init__(self, load: Load, on_loading: OnLoading) -> None:
        pass

    def render(self, job: Generate, report: Report) -> None:  # noqa: ARG002
        os.kill(os.getppid(), signal.SIGKILL)
