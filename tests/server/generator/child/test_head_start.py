"""What the generator begins before its libraries are imported."""

import gc
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from server.generator.child import head_start
from server.generator.messages import Load
from server.settings import GeneratorSettings, ImageSettings, PromptSettings, SafetySettings, VideoSettings


@pytest.fixture(autouse=True)
def garbage_collection() -> Iterator[None]:
    yield
    gc.enable()


def load(**generator: str) -> Load:
    settings = GeneratorSettings(**generator)
    return Load(
        generator=settings,
        video=VideoSettings(),
        image=ImageSettings(),
        prompt=PromptSettings(),
        safety=SafetySettings(),
        data_dir="data",
    )


@pytest.mark.parametrize(
    "theirs", [{}, {"PYTORCH_ALLOC_CONF": "backend:native"}, {"PYTORCH_CUDA_ALLOC_CONF": "expandable_segments:False"}]
)
def test_the_operators_options_of_the_allocator_win(theirs: dict[str, str]) -> None:
    environment = dict(theirs)
    head_start.allow_expandable_segments(environment)
    assert environment == (theirs or {"PYTORCH_ALLOC_CONF": "expandable_segments:True"})


def test_objects_of_the_imports_are_no_garbage_before_or_after(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTORCH_ALLOC_CONF", "backend:native")
    head_start.begin(load(device="cpu"))
    assert not gc.isenabled()
    head_start.end()
    assert gc.isenabled()
    assert gc.get_freeze_count() > 0


@pytest.mark.parametrize("device", ["cuda", "cpu"])
def test_a_head_start_that_fails_says_nothing_and_stops_nothing(
    device: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Without a GPU, and with weights that cannot be read: loading says so."""
    monkeypatch.setenv("PYTORCH_ALLOC_CONF", "backend:native")
    monkeypatch.setitem(sys.modules, "torch", None)
    (tmp_path / "gone.safetensors").symlink_to(tmp_path / "nowhere")
    head_start.begin(load(device=device, model=str(tmp_path)))
    for thread in threading.enumerate():
        if thread.name == "head-start":
            thread.join(10)
    assert capfd.readouterr().err == ""
