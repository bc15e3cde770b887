"""Writes its prompt into the job's log, then works."""

from server.generator.child.contract import Report
from server.generator.messages import Generate, Load, Log
from tests.fakes import renders_colour


class Renderer:
    model = "fake: repeats its prompt"

    def __init__(self, load: Load) -> None:
        self._next = renders_colour.Renderer(load)

    def render(self, job: Generate, report: Report) -> None:
        report(Log(message=job.prompt))
        self._next.render(job, report)
