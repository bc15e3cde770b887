"""Behaves as the first word of the prompt says, so that one server can serve many tests."""

from server.messages import Generate, Load
from server.rendering import Report
from tests.fakes import exits, hangs, is_killed, raises, renders_colour, waits_for_a_file, works_slowly

_FAKES = {
    "RAISES": raises,
    "EXITS": exits,
    "IS_KILLED": is_killed,
    "HANGS": hangs,
    "WORKS_SLOWLY": works_slowly,
    "WAITS": waits_for_a_file,
}


class Renderer:
    model = "fake: by prompt"

    def __init__(self, load: Load) -> None:
        self._load = load

    def render(self, job: Generate, report: Report) -> None:
        fake = _FAKES.get(job.prompt.split()[0], renders_colour)
        fake.Renderer(self._load).render(job, report)
