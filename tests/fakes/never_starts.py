"""Encodes the prompt and never finishes a first block, as a compilation that hangs does."""

import threading

from server.generator.child.contract import OnLoading, Report
from server.generator.messages import Generate, Load, Working


class Renderer:
    model = "fake: never starts"

    def __init__(self, load: Load, on_loading: OnLoading) -> None:
        pass

    def render(self, job: Generate, report: Report) -> None:  # noqa: ARG002
        report(Working(stage="encode", done=1, total=1))
        threading.Event().wait()
