"""`hunyuan-custom requests ...` and `status`, beside a running server."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from server.jobs.request_state import State
from tests.harness.command import Ran, run_command
from tests.harness.live_server import Server, example


@pytest.fixture(scope="module")
def made(server: Server) -> Iterator[dict[State, str]]:
    """A request in each state; the running one keeps the GPU from the waiting one."""
    running = server.submit(example(prompt="WORKS_SLOWLY"))
    server.until_running(running)
    ids = {State.RUNNING: running, State.FAILED: server.submit(example(num_frames=1))}
    ids[State.CANCELLED] = server.submit(example())
    server.cancel(ids[State.CANCELLED])
    ids[State.WAITING] = server.submit(example(seed=11))
    yield ids
    for state in (State.WAITING, State.RUNNING):
        server.cancel(ids[state])
        server.finish(ids[state])


def beside(server: Server, *words: str) -> Ran:
    return run_command(*words, "--data-dir", str(server.data_dir))


def test_requests_are_listed_newest_first(server: Server, made: dict[State, str]) -> None:
    listed = json.loads(beside(server, "requests", "list", "--json", "--limit", "4").out)
    assert [(one["request_id"], one["state"]) for one in listed] == [
        (one, state) for state, one in reversed(made.items())
    ]
    (error,) = [one["error"] for one in listed if one["state"] == State.FAILED]
    assert error == "num_frames: Input should be greater than or equal to 81", "the field, not the status"


@pytest.mark.parametrize("state", [State.WAITING, State.RUNNING, State.FAILED, State.CANCELLED])
def test_requests_of_one_state(server: Server, made: dict[State, str], state: State) -> None:
    head, first, *_ = beside(server, "requests", "list", "--status", state).out.splitlines()
    assert head.split()[:3] == ["request", "owner", "state"]
    assert first.split()[:3] == [made[state], "local", state]


def test_requests_of_an_owner_without_any(server: Server, made: dict[State, str]) -> None:  # noqa: ARG001
    assert beside(server, "requests", "list", "--owner", "alice", "--json").out == "[]\n"


def test_a_request_is_shown_with_its_input_error_and_log(server: Server, made: dict[State, str]) -> None:
    running = json.loads(beside(server, "requests", "show", made[State.RUNNING], "--json").out)
    assert (running["state"], running["input"]["prompt"], running["attempts"]) == ("running", "WORKS_SLOWLY", 1)
    assert running["input"]["image_url"] == "data:", "the picture itself is in the storage"
    failed = json.loads(beside(server, "requests", "show", made[State.FAILED], "--json").out)
    assert failed["response"]["body"]["detail"][0]["loc"] == ["body", "num_frames"]
    shown = beside(server, "requests", "show", made[State.FAILED]).out
    assert "greater than or equal to 81" in shown


def test_what_a_user_wrote_tells_the_terminal_nothing(server: Server) -> None:
    written = "\u009b2J\n2026-11-26 forged"
    request_id = server.submit(example(prompt=written))
    server.cancel(request_id)
    as_json = beside(server, "requests", "show", request_id, "--json").out
    assert json.loads(as_json)["input"]["prompt"] == written
    assert "\u009b" not in as_json
    shown = beside(server, "requests", "show", request_id).out
    assert "\\x9b2J\\n2026-11-26 forged" in shown
    assert "\u009b" not in shown


def test_a_request_is_cancelled_once(server: Server) -> None:
    doomed = server.submit(example(prompt="WORKS_SLOWLY"))
    assert doomed in beside(server, "requests", "cancel", doomed).out
    assert server.finish(doomed).status_code == 499
    again = beside(server, "requests", "cancel", doomed)
    assert (again.code, len(again.err.splitlines())) == (2, 1)
    assert "over already" in again.err


@pytest.mark.parametrize("command", ["show", "cancel"])
def test_an_unknown_request_is_one_line(server: Server, command: str) -> None:
    ran = beside(server, "requests", command, "x")
    assert (ran.code, ran.err) == (2, "error: x: no such request\n")


@pytest.mark.parametrize("way", ["database", "server"])
def test_status_says_what_waits_and_runs(server: Server, made: dict[State, str], way: str) -> None:
    source = ("--data-dir", str(server.data_dir)) if way == "database" else ("--server", server.url)
    seen = json.loads(run_command("status", "--json", *source).out)
    assert seen["ready"] is True
    assert [job["request_id"] for job in seen["running"]] == [made[State.RUNNING]]
    assert [job["request_id"] for job in seen["queue"]["next"]] == [made[State.WAITING]]
    shown = run_command("status", *source).out
    assert shown.startswith("ready: 1 of 1 workers")
    assert made[State.RUNNING] in shown


@pytest.mark.parametrize("words", [("status",), ("requests", "list"), ("requests", "show", "x")])
def test_no_database_is_one_line_and_none_is_made(words: tuple[str, ...], tmp_path: Path) -> None:
    ran = run_command(*words, "--data-dir", str(tmp_path))
    assert (ran.code, len(ran.err.splitlines())) == (2, 1)
    assert "there is no database" in ran.err
    assert not list(tmp_path.iterdir())
