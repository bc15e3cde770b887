"""`hunyuan-custom requests ...` and `status`, beside a running server and by way of it."""

import json
from collections.abc import Callable, Iterator
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


Ask = Callable[..., Ran]


@pytest.fixture(params=["database", "server"])
def ask(request: pytest.FixtureRequest, server: Server) -> Ask:
    """Run a command on that deployment."""
    source = ("--data-dir", str(server.data_dir)) if request.param == "database" else ("--server", server.url)
    return lambda *words: run_command(*words, *source)


def test_requests_are_listed_newest_first(ask: Ask, made: dict[State, str]) -> None:
    listed = json.loads(ask("requests", "list", "--json", "--limit", "4").out)
    assert [(one["request_id"], one["state"]) for one in listed] == [
        (one, state) for state, one in reversed(made.items())
    ]
    (error,) = [one["error"] for one in listed if one["state"] == State.FAILED]
    assert error == "num_frames: Input should be greater than or equal to 81", "the field, not the status"


@pytest.mark.parametrize("state", [State.WAITING, State.RUNNING, State.FAILED, State.CANCELLED])
def test_requests_of_one_state(ask: Ask, made: dict[State, str], state: State) -> None:
    head, first, *_ = ask("requests", "list", "--status", state).out.splitlines()
    assert head.split()[:3] == ["request", "owner", "state"]
    assert first.split()[:3] == [made[state], "local", state]


def test_requests_of_an_owner_without_any(ask: Ask, made: dict[State, str]) -> None:  # noqa: ARG001
    assert ask("requests", "list", "--owner", "alice", "--json").out == "[]\n"


def test_a_request_is_shown_with_its_input_error_and_log(ask: Ask, made: dict[State, str]) -> None:
    running = json.loads(ask("requests", "show", made[State.RUNNING], "--json").out)
    assert (running["state"], running["input"]["prompt"], running["attempts"]) == ("running", "WORKS_SLOWLY", 1)
    assert running["input"]["image_url"] == "data:", "the picture itself is in the storage"
    failed = json.loads(ask("requests", "show", made[State.FAILED], "--json").out)
    assert failed["response"]["body"]["detail"][0]["loc"] == ["body", "num_frames"]
    shown = ask("requests", "show", made[State.FAILED]).out
    assert "greater than or equal to 81" in shown


def test_both_sources_show_the_same(server: Server, made: dict[State, str]) -> None:
    for words in (("show", made[State.FAILED]), ("show", made[State.FAILED], "--json"), ("list", "--status", "failed")):
        beside = run_command("requests", *words, "--data-dir", str(server.data_dir))
        assert run_command("requests", *words, "--server", server.url) == beside


def test_what_a_user_wrote_tells_the_terminal_nothing(server: Server, ask: Ask) -> None:
    written = "\u009b2J\n2026-11-26 forged"
    request_id = server.submit(example(prompt=written))
    server.cancel(request_id)
    as_json = ask("requests", "show", request_id, "--json").out
    assert json.loads(as_json)["input"]["prompt"] == written
    assert "\u009b" not in as_json
    shown = ask("requests", "show", request_id).out
    assert "\\x9b2J\\n2026-11-26 forged" in shown
    assert "\u009b" not in shown


def test_a_request_is_cancelled_once(server: Server, ask: Ask) -> None:
    doomed = server.submit(example(prompt="WORKS_SLOWLY"))
    assert doomed in ask("requests", "cancel", doomed).out
    assert server.finish(doomed).status_code == 499
    again = ask("requests", "cancel", doomed)
    assert (again.code, len(again.err.splitlines())) == (2, 1)
    assert "over already" in again.err


@pytest.mark.parametrize("command", ["show", "cancel"])
@pytest.mark.parametrize("name", ["x", "x?y", "", ".", ".."])
def test_an_unknown_request_is_one_line(ask: Ask, command: str, name: str) -> None:
    ran = ask("requests", command, name)
    assert (ran.code, ran.err) == (2, f"error: {name}: no such request\n")


def test_status_says_what_waits_and_runs(ask: Ask, made: dict[State, str]) -> None:
    seen = json.loads(ask("status", "--json").out)
    assert seen["ready"] is True
    assert [job["request_id"] for job in seen["running"]] == [made[State.RUNNING]]
    assert [job["request_id"] for job in seen["queue"]["next"]] == [made[State.WAITING]]
    shown = ask("status").out
    assert shown.startswith("ready: 1 of 1 workers")
    assert made[State.RUNNING] in shown


@pytest.mark.parametrize("words", [("status",), ("requests", "list"), ("requests", "show", "x")])
def test_no_database_is_one_line_and_none_is_made(words: tuple[str, ...], tmp_path: Path) -> None:
    ran = run_command(*words, "--data-dir", str(tmp_path))
    assert (ran.code, len(ran.err.splitlines())) == (2, 1)
    assert "there is no database" in ran.err
    assert not list(tmp_path.iterdir())
