from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler
from safetensors.torch import load_file
from torch import Tensor

from pipeline import denoise as module
from pipeline.denoise import Interrupted, Sampling, block_count, denoise, sigma_schedule
from pipeline.share import Share


@pytest.fixture(scope="module")
def schedules(golden_folder: Path) -> dict[str, Tensor]:
    return load_file(golden_folder / "rope_sched.safetensors")


@pytest.mark.parametrize("steps", [10, 20, 30, 50])
@pytest.mark.parametrize("shift", [1, 5, 7, 13])
def test_schedule_equals_the_reference(steps: int, shift: int, schedules: dict[str, Tensor], close: Any) -> None:
    timesteps, sigmas = sigma_schedule(FlowMatchEulerDiscreteScheduler(shift=float(shift)), steps)
    close("sigmas", sigmas, schedules[f"sched.{steps}.{shift}.sigmas"], 2e-7)
    close("timesteps", timesteps, schedules[f"sched.{steps}.{shift}.timesteps"], 2e-4)


def _run(
    velocities: list[Tensor], steps: int, noise: Tensor, monkeypatch: pytest.MonkeyPatch, **options: Any
) -> Tensor:
    """The loop over branches that always predict `velocities`."""
    monkeypatch.setattr(module, "prepare", lambda _model, branches, *_, **__: branches)
    monkeypatch.setattr(module, "_predict", lambda _model, _latents, _timestep, branch, **_: branch)
    scales = {"guidance_scale": options.get("guidance_scale", 1.0), "ip_cfg_scale": options.get("ip_cfg_scale", 0.0)}
    predicted_by: Any = None
    return denoise(
        predicted_by,
        noise,
        velocities,
        share=Share((noise, noise)),
        schedule=sigma_schedule(FlowMatchEulerDiscreteScheduler(shift=13.0), steps),
        sampling=Sampling(steps=steps, step_cache=None, **scales),
        on_block=lambda: None,
        on_step=options.get("on_step", lambda _step, _timestep, latents, _velocity: latents),
    )


def test_euler_steps_equal_the_reference(
    schedules: dict[str, Tensor], monkeypatch: pytest.MonkeyPatch, close: Any
) -> None:
    sample, velocity = schedules["step.in.sample_fp16"].float(), schedules["step.in.model_bf16"].float()
    seen: list[Tensor] = []

    def on_step(_step: int, _timestep: Tensor, latents: Tensor, _velocity: Tensor) -> Tensor:
        seen.append(latents)
        return latents

    _run([velocity], 10, sample, monkeypatch, on_step=on_step)
    close("Euler step", seen[0], schedules["step.out.sample1"], 1e-6)
    close("Euler step", seen[1], schedules["step.out.sample2"], 1e-6)


def test_guidance_formulas(monkeypatch: pytest.MonkeyPatch) -> None:
    """One step from sigma 1 to 0 subtracts the velocity once."""
    v0, v1, v2 = (torch.tensor(value) for value in (1.0, 3.0, 7.0))
    zero = torch.tensor(0.0)
    assert -_run([v0], 1, zero, monkeypatch).item() == 1
    assert -_run([v0, v1], 1, zero, monkeypatch, guidance_scale=2.0).item() == 1 + 2 * (3 - 1)
    with_identity = _run([v0, v1, v2], 1, zero, monkeypatch, guidance_scale=2.0, ip_cfg_scale=3.0)
    assert -with_identity.item() == 1 + 2 * (3 - 1) + 3 * (7 - 3)


def test_an_interrupt_gives_back_the_last_whole_step(monkeypatch: pytest.MonkeyPatch) -> None:
    finished: list[Tensor] = []

    def on_step(_step: int, _timestep: Tensor, latents: Tensor, _velocity: Tensor) -> Tensor:
        finished.append(latents)
        if len(finished) == 2:
            monkeypatch.setattr(module, "_predict", _interrupt)
        return latents

    def _interrupt(*_: Any, **__: Any) -> Tensor:
        raise Interrupted

    result = _run([torch.ones(1)], 5, torch.zeros(1), monkeypatch, on_step=on_step)
    assert len(finished) == 2
    assert result is finished[-1]


def test_block_count_of_cached_schedules(dit: Any) -> None:
    full = Sampling(steps=30, guidance_scale=7.5, ip_cfg_scale=0.0, step_cache=None)
    assert block_count(dit, 2, full) == 2 * 30 * 4
    assert block_count(dit, 2, replace(full, step_cache="reference")) == 2 * (22 * 4 + 8 * 1)
