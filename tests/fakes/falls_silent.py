"""Logs three lines at once, makes the file `silent` in the data directory, and says nothing more."""

import time
from pathlib import Path

from server.generator.child.contract import OnLoading, Report
from server.generator.messages import Generate, Load, Log


class Renderer:
    model = "fake: falls silent"

    def __init__(self, load: Load, on_loading: OnLoading) -> None:  # noqa: ARG002
        self._folder = Path(load.data_dir)

    def render(self, job: Generate, report: Report) -> None:  # noqa: ARG002
        for line in ("one", "two", "three"):
            report(Log(message=line))
        (self._folder / "silent").touch()
        time.sleep(3600)
