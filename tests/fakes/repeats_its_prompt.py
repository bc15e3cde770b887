"""Writes its prompt into the job's log, then works."""

from server.generator.child.contract import OnLoading, Report
from server.generator.messages import Generate, Load, Log
from tests.fakes import renders_colour


class Renderer:
    model = "fake: repeats its prompt"

    def __init__(self, load: Load, on_loading: OnLoading) -> None:
        self._next = renders_colour.Renderer(load, on_loading)

    def render(self, job: Generate, report: Report) -> None:
        report(Log(message=job.prompt))
        self._next.render(job, report)
