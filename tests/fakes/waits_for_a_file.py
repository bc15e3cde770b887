"""Works until the file `go` is in the data directory, then renders a colour; `renders` there counts the beginnings."""

import time
from pathlib import Path

from server.generator.child.contract import OnLoading, Report
from server.generator.messages import Generate, Load, Working
from tests.fakes import renders_colour


class Renderer:
    model = "fake: waits for a file"

    def __init__(self, load: Load, on_loading: OnLoading) -> None:
        self._folder = Path(load.data_dir)
        self._colour = renders_colour.Renderer(load, on_loading)

    def render(self, job: Generate, report: Report) -> None:
        with (self._folder / "renders").open("a") as renders:
            renders.write(f"{job.request_id}\n")
        block = 0
        while not (self._folder / "go").exists():
            block += 1
            report(Working(stage="denoise", done=block, total=10**6))
            time.sleep(0.05)
        self._colour.render(job, report)
