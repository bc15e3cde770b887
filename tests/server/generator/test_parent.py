"""The parent side of the generator alone, with a real child: what neither a request nor an answer shows."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from server.fal.example import PHOTO
from server.generator.messages import Generate, JobMessage, Working
from server.generator.parent import GenerationCancelled, Generator
from server.generator.state import Phase
from server.settings_loader import load_settings
from tests.harness.live_server import until


def generator(data_dir: Path, **settings: Any) -> Generator:
    fast = {"restart_delay_s": 0.05, "device": "cpu", "dtype": "float32", "idle_unload_s": 1e-6}
    return Generator(
        load_settings(None, {"data_dir": data_dir, "generator": fast | settings, "jobs": {"cancel_poll_s": 0.01}})
    )


def job(folder: Path) -> Generate:
    return Generate(
        request_id="x",
        prompt="a woman is playing a violin",
        expand_prompt=True,
        log_prompt=True,
        negative_prompt="",
        image=str(PHOTO),
        output=str(folder / "x.mp4"),
        checkpoint=str(folder / "x.checkpoint"),
        cut_out=str(folder / "x.checkpoint.png"),
        check_safety=True,
        width=896,
        height=512,
        num_frames=129,
        fps=25,
        num_inference_steps=2,
        guidance_scale=7.5,
        seed=1,
    )


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Generator]:
    """The demo model in a real child."""
    parent = generator(tmp_path_factory.mktemp("real"), torch_threads=1, render_divisor=4)
    parent.start()
    until(lambda: parent.state.phase is Phase.READY, timeout_s=120)
    with end_of(parent):
        yield parent


@pytest.mark.parametrize("stage", ["encode", "decode"])
def test_a_cancel_is_seen_between_encoders_and_between_tiles(real: Generator, tmp_path: Path, stage: str) -> None:
    seen: list[Working] = []

    def on_message(message: JobMessage) -> None:
        if isinstance(message, Working):
            seen.append(message)

    def cancel_requested() -> bool:
        return stage == "encode" or any(message.stage == stage for message in seen)

    before = real.state.pid
    with real.reserved() as ready, pytest.raises(GenerationCancelled):
        assert ready
        real.run(job(tmp_path), on_message=on_message, cancel_requested=cancel_requested)
    last = seen[-1] if seen else Working(stage="encode", done=0, total=1)
    assert last.stage == stage
    assert last.done < last.total, "it did not go on to the end of the stage"
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
