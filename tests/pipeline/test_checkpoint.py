"""A generation resumed from a checkpoint ends in the same latents as one that was not interrupted."""

from pathlib import Path
from typing import Any

import pytest
import torch

from pipeline.checkpoint import Checkpoint, fingerprint, read_checkpoint, weights_fingerprint, write_checkpoint
from pipeline.step_cache import can_start_at, full_steps

FIRST_BLOCK = {"step_cache": "first_block", "step_cache_threshold": 0.7}  # reuses in some of the steps that may


@pytest.mark.parametrize("options", [{}, {"step_cache": "reference"}, {"ip_cfg_scale": 3.0}, FIRST_BLOCK])
def test_a_resumed_run_equals_an_uninterrupted_one(pipe: Any, identity: Any, options: dict[str, Any]) -> None:
    steps = 6
    before: list[torch.Tensor] = []

    def keep(_pipe: Any, _step: int, _timestep: Any, tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        before.append(tensors["latents"].clone())
        return tensors

    call = {"height": 32, "width": 48, "num_frames": 5, "num_inference_steps": steps, "output_type": "latent"} | options
    whole = pipe(
        "a woman", identity, generator=torch.Generator().manual_seed(3), callback_on_step_end=keep, **call
    ).frames
    full = full_steps(options.get("step_cache"), steps)
    starts = [step for step in range(1, steps) if can_start_at(step, full)]
    for step in (starts[0], starts[-1]):
        rest = pipe("a woman", identity, latents=before[step - 1], start_step=step, **call).frames
        assert torch.equal(rest, whole)


def test_a_cached_step_is_no_starting_point(pipe: Any, identity: Any) -> None:
    full = full_steps("reference", 30)
    assert not can_start_at(11, full)
    assert not can_start_at(30, full)
    with pytest.raises(ValueError, match="start_step"):
        pipe(
            "p",
            identity,
            height=32,
            width=48,
            num_frames=5,
            latents=torch.zeros(1, 16, 2, 4, 6),
            start_step=11,
            step_cache="reference",
        )


def test_only_its_own_undamaged_checkpoint_is_read(tmp_path: Path) -> None:
    path = tmp_path / "x.checkpoint"
    latents = torch.randn(1, 16, 2, 8, 12)
    mine = fingerprint({"seed": 1})
    assert read_checkpoint(path, mine) is None
    write_checkpoint(path, Checkpoint(4, latents, 'a "dog"\n漢🎻', "dog"), mine)
    found = read_checkpoint(path, mine)
    assert found is not None
    assert found.next_step == 4
    assert torch.equal(found.latents, latents)
    assert (found.prompt, found.subject_name) == ('a "dog"\n漢🎻', "dog")
    assert read_checkpoint(path, fingerprint({"seed": 2})) is None
    path.write_bytes(path.read_bytes()[:-10])
    assert read_checkpoint(path, mine) is None
    assert [file.name for file in tmp_path.iterdir()] == ["x.checkpoint"]


def test_other_weights_have_another_fingerprint(tmp_path: Path) -> None:
    (tmp_path / "a.safetensors").write_bytes(b"1")
    before = weights_fingerprint(tmp_path)
    assert weights_fingerprint(tmp_path) == before
    (tmp_path / "a.safetensors").write_bytes(b"22")
    assert weights_fingerprint(tmp_path) != before
