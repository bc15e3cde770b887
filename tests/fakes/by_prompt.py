"""Behaves as the first word of the prompt says, so that one server can serve many tests."""

from server.generator.child.contract import OnLoading, Report
from server.generator.messages import Generate, Load
from tests.fakes import (
    cuts_out,
    exits,
    finishes_at_once,
    flags,
    hangs,
    hangs_once,
    is_killed,
    kills_the_worker,
    never_starts,
    raises,
    renders_colour,
    repeats_its_prompt,
    stops_mid_sentence,
    waits_for_a_file,
    works_slowly,
)

_FAKES = {
    "AT_ONCE": finishes_at_once,
    "RAISES": raises,
    "CUTS_OUT": cuts_out,
    "FLAGS": flags,
    "REPEATS": repeats_its_prompt,
    "EXITS": exits,
    "IS_KILLED": is_killed,
    "STOPS_MID_SENTENCE": stops_mid_sentence,
    "KILLS_THE_WORKER": kills_the_worker,
    "HANGS": hangs,
    "HANGS_ONCE": hangs_once,
    "NEVER_STARTS": never_starts,
    "WORKS_SLOWLY": works_slowly,
    "WAITS": waits_for_a_file,
}


class Renderer:
    model = "fake: by prompt"

    def __init__(self, load: Load, on_loading: OnLoading) -> None:
        self._load = load
        self._on_loading = on_loading

    def render(self, job: Generate, report: Report) -> None:
        fake = _FAKES.get(job.prompt.split()[0], renders_colour)
        fake.Renderer(self._load, self._on_loading).render(job, report)
