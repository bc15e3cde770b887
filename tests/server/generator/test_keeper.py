"""The generator process is kept running whatever the machine lacks at the moment."""

import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast
from unittest.mock import Mock

import pytest

from server.bench.waiting import LIMIT_S
from server.generator.keeper import GeneratorKeeper
from server.generator.messages import Channel, FromGenerator, Load, Ready
from server.generator.parent import Generator
from server.generator.state import GeneratorState, Phase
from server.settings_loader import load_settings
from tests.harness.live_server import until


@contextmanager
def running(data_dir: Path) -> Iterator[GeneratorKeeper]:
    """A keeper with a loaded model; its process is gone afterwards, and no other is started."""
    fast = {"restart_delay_s": 0.05, "renderer": "tests.fakes.renders_colour:Renderer"}
    keeper = GeneratorKeeper(load_settings(None, {"data_dir": data_dir, "generator": fast}))
    keeper.start()
    keeper.wait_until_usable()
    try:
        yield keeper
    finally:
        keeper.unload()
        until(lambda: keeper.state.phase is Phase.IDLE)


def test_no_room_for_a_process_is_a_matter_of_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    start = subprocess.Popen
    refusals = iter([OSError(12, "Cannot allocate memory"), OSError(24, "Too many open files")])

    def refuse_twice(*args: Any, **options: Any) -> Any:
        refusal = next(refusals, None)
        if refusal is not None:
            raise refusal
        return start(*args, **options)

    monkeypatch.setattr(subprocess, "Popen", refuse_twice)
    with running(tmp_path):
        assert next(refusals, None) is None


def test_a_process_that_cannot_be_watched_does_not_stay_beside_the_next_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    start, started = subprocess.Popen, []

    def remember(*args: Any, **options: Any) -> Any:
        started.append(start(*args, **options))
        return started[-1]

    begin, refusals = threading.Thread.start, iter([RuntimeError("can't start new thread")])

    def refuse_once(thread: threading.Thread) -> None:
        refusal = next(refusals, None) if thread.name == "generator-limit" else None
        if refusal is not None:
            raise refusal
        begin(thread)

    monkeypatch.setattr(subprocess, "Popen", remember)
    monkeypatch.setattr(threading.Thread, "start", refuse_once)
    with running(tmp_path):
        assert [process.poll() is None for process in started] == [False, True]


def test_a_model_that_takes_too_long_is_given_up(tmp_path: Path) -> None:
    slow = {"restart_delay_s": 0.1, "load_timeout_s": 0.05, "renderer": "tests.fakes.loads_for_ever:Renderer"}
    keeper = GeneratorKeeper(load_settings(None, {"data_dir": tmp_path, "generator": slow}))
    keeper.start()
    try:
        until(lambda: keeper.state == GeneratorState(Phase.FAILED, "the model did not load within 0.05 s"))
    finally:
        keeper.unload()
        until(lambda: keeper.state.phase is Phase.IDLE)


@pytest.mark.parametrize("loads", [True, False])
def test_time_in_which_the_worker_is_frozen_is_no_time_to_load(tmp_path: Path, loads: bool) -> None:
    now, seconds, killed = [0.0], iter([3600, *[1] * 12]), Mock()
    settings = load_settings(None, {"data_dir": tmp_path, "generator": {"load_timeout_s": 10}})
    keeper = GeneratorKeeper(settings, clock=lambda: now[0])

    class Ended(threading.Event):
        def wait(self, timeout: float | None = None) -> bool:  # noqa: ARG002
            second = next(seconds)
            now[0] += second
            if loads and second == 1:  # what the process said meanwhile is read
                keeper._usable.set()
            return False

    keeper._kill_unless_loaded(killed, Ended(), overdue := threading.Event())
    assert overdue.is_set() is killed.kill.called is not loads


def test_a_model_that_is_waited_for_does_not_stay_unloaded(tmp_path: Path) -> None:
    with running(tmp_path) as keeper:
        keeper.kill()
        waiting = threading.Thread(target=keeper.wait_until_usable, daemon=True)
        waiting.start()
        keeper.unload()
        waiting.join(LIMIT_S)
        assert keeper.usable


def test_a_model_that_runs_out_of_memory_goes_on_below_what_auto_had_chosen(tmp_path: Path) -> None:
    generator = Generator(load_settings(None, {"data_dir": tmp_path, "generator": {"memory_plan": "auto"}}))
    generator._keeper._receive(Ready(model="m", seconds=1.0, memory_plan="offload_encoders"), pid=1)
    assert [generator.shrink(), generator.shrink()] == ["stream_blocks", None]


def test_the_next_plan_may_be_passed_over_where_it_has_no_room(tmp_path: Path) -> None:
    """A plan that was only taken for want of memory must not fail to load: the server would make no more videos."""
    generator = Generator(load_settings(None, {"data_dir": tmp_path, "generator": {"memory_plan": "resident"}}))
    loads: list[Load] = []

    class Pipe:
        def send(self, message: Load) -> None:
            loads.append(message)

    for _ in range(2):
        generator._keeper._begin_loading(cast(Channel[FromGenerator], Pipe()))
        generator.shrink()
    assert [(load.generator.memory_plan, load.made_room) for load in loads] == [
        ("resident", False),
        ("offload_encoders", True),
    ]
