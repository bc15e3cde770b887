"""Is killed while it says something: half a line is all that the worker gets."""

import os
import signal
import sys

from server.generator.child.contract import OnLoading, Report
from server.generator.messages import Generate, Load


class Renderer:
    model = "fake: stops in mid-sentence"

    def __init__(self, load: Load, on_loading: OnLoading) -> None:
        pass

    def render(self, job: Generate, report: Report) -> None:  # noqa: ARG002
        os.write(int(sys.argv[1]), b'{"kind":"working","stage":"den')
        os.kill(os.getpid(), signal.SIGKILL)
