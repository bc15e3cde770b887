"""Falls silent the first time it works on a request; the next time it renders a colour."""

from pathlib import Path

from server.generator.child.contract import OnLoading, Report
from server.generator.messages import Generate, Load
from tests.fakes import hangs, renders_colour


class Renderer:
    model = "fake: hangs once"

    def __init__(self, load: Load, on_loading: OnLoading) -> None:
        self._load = load
        self._on_loading = on_loading

    def render(self, job: Generate, report: Report) -> None:
        hung = Path(self._load.data_dir) / f"{job.request_id}.hung"
        fake = renders_colour if hung.exists() else hangs
        hung.touch()
        fake.Renderer(self._load, self._on_loading).render(job, report)
