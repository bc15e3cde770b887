"""A video by a server, for a command whose terminal goes away."""

from pathlib import Path

import pytest

from server.fal.schemas import validate_input
from server.generate.remote import RemoteGeneration
from server.generate.server_calls import ServerCalls
from tests.harness.live_server import Server, example
from weights.progress_bar import ProgressBar


class _ClosedTerminal(ProgressBar):
    """`generate ... | head`, when the request is under way."""

    def show(self, what: str, done: int = 0, total: int = 0, *, left_s: float | None = None) -> None:  # noqa: ARG002
        if total:
            raise BrokenPipeError


def test_a_request_ends_with_the_terminal_that_waits_for_it(server: Server, tmp_path: Path) -> None:
    with ServerCalls(server.url, None) as calls:
        generation = RemoteGeneration(calls, _ClosedTerminal(), lambda: False)
        with pytest.raises(BrokenPipeError):
            generation.run(validate_input(example(prompt="WORKS_SLOWLY")), seed=1, output=tmp_path / "x.mp4")
    newest = server.http.get("/playground/requests", params={"limit": 1}).json()["requests"][0]
    assert server.finish(newest["request_id"]).status_code == 499
