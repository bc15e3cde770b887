"""The generator process is kept running whatever the machine lacks at the moment."""

import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import pytest

from server.bench.waiting import LIMIT_S
from server.generator.keeper import GeneratorKeeper
from server.generator.messages import Channel, FromGenerator, Load, Ready
from server.generator.parent import Generator
from server.generator.state import Phase
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

    begin, refusals = threading.Timer.start, iter([RuntimeError("can't start new thread")])

    def refuse_once(timer: threading.Timer) -> None:
        refusal = next(refusals, None)
        if refusal is not None:
            raise refusal
        begin(timer)

    monkeypatch.setattr(subprocess, "Popen", remember)
    monkeypatch.setattr(threading.Timer, "start", refuse_once)
    with running(tmp_path):
        assert [process.poll() is None for process in started] == [False, True]


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
