"""Whose a checkpoint is, and what it costs when it cannot be written."""

import logging
from pathlib import Path
from typing import Any

import pytest
import torch

from pipeline.checkpoint import Checkpoint, write_checkpoint
from pipeline.language.writer import Words
from server.generator.child import checkpoints
from server.generator.child.checkpoints import Checkpoints
from server.settings import GeneratorSettings
from tests.harness.generate_job import generate_job

WORDS = Words(prompt="p. The light is soft. 漢", subject_name="dog")


def checkpoints_of(path: Path, *, alpha: str = "white", **generator: Any) -> Checkpoints:
    job = generate_job(checkpoint=str(path))
    return Checkpoints(job, "weights", GeneratorSettings(device="cpu", **generator), None, alpha=alpha)


def test_a_checkpoint_belongs_to_its_settings_and_its_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, noise, kept = tmp_path / "x.checkpoint", torch.ones(1, 16, 2, 8, 12), torch.zeros(1, 16, 2, 8, 12)
    checkpoints_of(path).keep(1, kept, WORDS)
    step, latents = checkpoints_of(path).start(noise)
    assert step == 1
    assert torch.equal(latents, kept)
    assert checkpoints_of(path).words == WORDS
    assert checkpoints_of(path, alpha="drop").words is None
    assert checkpoints_of(path, alpha="drop").start(noise) == (0, noise)
    assert checkpoints_of(path, attention="sage").start(noise) == (0, noise)
    assert checkpoints_of(path, fused="eager").start(noise) == (0, noise)
    monkeypatch.setattr(checkpoints, "version", lambda _: "0.0.1")
    assert checkpoints_of(path).start(noise) == (0, noise)


def test_a_disk_without_room_costs_the_checkpoint_and_not_the_job(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        checkpoints_of(tmp_path / "missing" / "x.checkpoint").keep(1, torch.zeros(1, 16, 2, 8, 12), WORDS)
    assert "no checkpoint at step 1" in caplog.text


def test_two_writers_do_not_meet_in_one_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A writer that was frozen before its rename wakes up after another has written the same checkpoint."""
    path = tmp_path / "x.checkpoint"
    replace = Path.replace

    def overtaken(part: Path, target: Path) -> Path:
        monkeypatch.setattr(Path, "replace", replace)
        write_checkpoint(path, Checkpoint(2, torch.zeros(1), "p", "object"), "mine")
        return replace(part, target)

    monkeypatch.setattr(Path, "replace", overtaken)
    write_checkpoint(path, Checkpoint(1, torch.zeros(1), "p", "object"), "mine")
    assert list(tmp_path.iterdir()) == [path]
