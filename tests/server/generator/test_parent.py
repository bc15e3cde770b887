"""The parent side of the generator alone, with a real child: what neither a request nor an answer shows."""

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest

from server.generator.faults import GenerationCancelled, GeneratorDied
from server.generator.messages import Cancel, Channel, Generate, JobMessage, Working, from_generator
from server.generator.parent import Generator
from server.generator.state import Phase
from server.settings_loader import load_settings
from tests.harness.generate_job import generate_job
from tests.harness.live_server import until


def generator(data_dir: Path, **settings: Any) -> Generator:
    fast = {"restart_delay_s": 0.05, "device": "cpu", "dtype": "float32", "idle_unload_s": 1e-6}
    return Generator(
        load_settings(None, {"data_dir": data_dir, "generator": fast | settings, "jobs": {"cancel_poll_s": 0.01}})
    )


def job(folder: Path, *, steps: int = 2) -> Generate:
    return generate_job(folder, num_inference_steps=steps, num_frames=129)


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Generator]:
    """The demo model in a real child."""
    parent = generator(tmp_path_factory.mktemp("real"), torch_threads=1, render_divisor=4)
    parent.start()
    until(lambda: parent.state.phase is Phase.READY, timeout_s=120)
    with end_of(parent):
        yield parent


@pytest.mark.parametrize(("stage", "steps", "goes_on"), [("encode", 30, 1.0), ("denoise", 30, 0.1), ("decode", 2, 1.0)])
def test_a_cancel_is_seen_between_encoders_blocks_and_tiles(
    real: Generator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stage: str, steps: int, goes_on: float
) -> None:
    """The process is frozen from its first word of the stage until the cancel is on its way to it."""
    before, send = real.state.pid, real._keeper.send
    child = psutil.Process(before)
    seen: list[Working] = []

    def on_message(message: JobMessage) -> None:
        if isinstance(message, Working):
            if message.stage == stage and not is_there():
                child.suspend()
            seen.append(message)

    def is_there() -> bool:
        return any(message.stage == stage for message in seen)

    def cancel_requested() -> bool:
        return stage == "encode" or is_there()

    def send_and_thaw(message: Generate | Cancel) -> None:
        send(message)
        if isinstance(message, Cancel):
            child.resume()

    monkeypatch.setattr(real._keeper, "send", send_and_thaw)
    if stage == "encode":
        child.suspend()
    with real.reserved() as ready, pytest.raises(GenerationCancelled):
        assert ready
        real.run(
            job(tmp_path, steps=steps),
            on_message=on_message,
            cancel_requested=cancel_requested,
        )
    last = seen[-1] if seen else Working(stage="encode", done=0, total=1)
    assert last.stage == stage
    assert last.done < last.total * goes_on, "it did not go on to the end of the stage, nor through many steps"
    assert real.state.pid == before, "no need to kill it"
    assert not (tmp_path / "x.mp4").exists()


@contextmanager
def end_of(parent: Generator) -> Iterator[None]:
    """The child is gone afterwards, and no other takes its place."""
    try:
        yield
    finally:
        parent.unload_if_idle()
        until(lambda: parent.state.phase is Phase.IDLE)


def test_a_request_ends_with_the_process_it_was_meant_for(tmp_path: Path) -> None:
    """One that died since it was found usable is followed by another, which must not get what nobody waits for."""
    parent = generator(tmp_path)
    ours, next_process = socket.socketpair()
    parent._keeper._channel = channel = Channel(ours, from_generator)
    with pytest.raises(GeneratorDied):
        parent.run(
            job(tmp_path),
            on_message=lambda _: None,
            cancel_requested=lambda: False,
        )
    channel.close()
    with next_process:
        assert next_process.recv(1) == b""


def test_a_model_has_been_used_also_by_what_failed(tmp_path: Path) -> None:
    parent = generator(tmp_path, idle_unload_s=1000)
    parent._last_used = parent._keeper._loaded_at = -float("inf")
    parent._keeper._usable.set()
    with pytest.raises(KeyError), parent.reserved():
        raise KeyError
    parent.unload_if_idle()
    assert parent._keeper.usable
