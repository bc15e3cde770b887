"""The sampling loop: Euler steps along the velocity that guidance composes from the branches' predictions."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from torch import Tensor

from pipeline.components import Scheduler, Transformer
from pipeline.fused.kernels import EAGER, Kernels
from pipeline.memory.placement import onloaded
from pipeline.options import StepCacheName
from pipeline.prepared import Prepared, prepare, refined_text
from pipeline.shapes import whole_number
from pipeline.share import Share
from pipeline.step_cache import StepCache, can_start_at, full_steps
from pipeline.transformer import Branch, Context, OnBlock, head, trunk


class Interrupted(Exception):
    """Raised by `on_block` to stop at once; the loop returns the latents of the last finished step."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """How to sample: `guidance_scale` up to 1 is off, `ip_cfg_scale` (guidance by the identity) is off at 0."""

    steps: int
    guidance_scale: float
    ip_cfg_scale: float
    step_cache: StepCacheName | None
    start_step: int = 0  # above 0: resume with the latents that a stopped run had before that step

    def __post_init__(self) -> None:
        whole_number("num_inference_steps", self.steps)
        whole_number("start_step", self.start_step)
        for name, scale in (("guidance_scale", self.guidance_scale), ("ip_cfg_scale", self.ip_cfg_scale)):
            if not math.isfinite(scale):
                raise ValueError(f"`{name}` must be a finite number, got {scale}")
        if self.steps < 1:
            raise ValueError(f"`num_inference_steps` must be at least 1, got {self.steps}")
        if self.ip_cfg_scale < 0:
            raise ValueError(f"`ip_cfg_scale` must not be negative, got {self.ip_cfg_scale}")
        if self.ip_cfg_scale > 0 and not self.guided:
            raise ValueError("`ip_cfg_scale` needs a `guidance_scale` above 1: it refines that guidance")
        if not can_start_at(self.start_step, self.full_steps):
            allowed = [step for step, full in enumerate(self.full_steps) if full]
            raise ValueError(f"`start_step` must be a step that runs in full ({allowed}), got {self.start_step}")

    @property
    def guided(self) -> bool:
        return self.guidance_scale > 1

    def ip_scale(self, step: int) -> float:
        """Decreases linearly to about 1 at the last step, as in the reference."""
        return self.ip_cfg_scale - step * (self.ip_cfg_scale - 1) / (self.steps - 1 + 1e-3)

    @property
    def full_steps(self) -> tuple[bool, ...]:
        return full_steps(self.step_cache, self.steps)


def sigma_schedule(scheduler: Scheduler, steps: int) -> tuple[Tensor, Tensor]:
    """timesteps fp32 [steps] (0..1000) and sigmas fp32 [steps + 1] from 1 to 0, shifted as the scheduler's config says.

    The reference spaces steps + 1 points from 1 to 0; `set_timesteps(steps)` would end at 1/1000 instead.
    """
    scheduler.set_timesteps(sigmas=np.linspace(1, 0, steps + 1)[:-1])
    return scheduler.timesteps, scheduler.sigmas


def block_count(transformer: Transformer, branches: int, sampling: Sampling) -> int:
    """How many transformer blocks a whole run computes."""
    trunk_blocks = len(transformer.transformer_blocks) + len(transformer.single_transformer_blocks) - 1
    ahead = sampling.full_steps[sampling.start_step :]
    return branches * (sum(ahead) * trunk_blocks + len(ahead))


def denoise(
    transformer: Transformer,
    latents: Tensor,
    branches: Sequence[Branch],
    *,
    share: Share,
    schedule: tuple[Tensor, Tensor],
    sampling: Sampling,
    on_block: OnBlock,
    on_step: Callable[[int, Tensor, Tensor], Tensor],
    kernels: Kernels = EAGER,
) -> Tensor:
    """latents: fp32 noise [1,16,T,h,w] -> fp32 latents. Branches go from least to most conditioned (`guidance.py`)."""
    cache = StepCache(sampling.full_steps)
    kernels = replace(kernels, attention=share.attention(kernels.attention))
    context = Context(share=share, kernels=kernels, on_block=on_block)
    timesteps, sigmas = schedule
    on_device = timesteps.to(latents.device)  # copied once: a copy waits for everything queued on the device
    rows = share.rows(len(branches))
    with onloaded(transformer):
        prepared = prepare(transformer, [branches[row] for row in rows], on_device, start_step=sampling.start_step)
    for step in range(sampling.start_step, sampling.steps):
        timestep = on_device[step : step + 1]
        try:
            own = [
                _predict(transformer, latents, timestep, given, context=context, cache=cache, key=(step, row))
                for row, given in zip(rows, prepared, strict=True)
            ]
            v = share.predictions(own)
        except Interrupted:
            break
        velocity = v[0]
        if sampling.guided:
            velocity = v[0] + sampling.guidance_scale * (v[1] - v[0])
        if sampling.ip_cfg_scale > 0:
            velocity = velocity + sampling.ip_scale(step) * (v[2] - v[1])
        latents = latents + (sigmas[step + 1] - sigmas[step]).item() * velocity
        latents = on_step(step, timesteps[step], latents)
    return latents


def _predict(
    transformer: Transformer,
    latents: Tensor,
    timestep: Tensor,
    prepared: Prepared,
    *,
    context: Context,
    cache: StepCache,
    key: tuple[int, int],
) -> Tensor:
    """Velocity fp32 [1,16,T,h,w] of one branch at `key` (step, row). Cached steps run the head on an earlier trunk."""
    branch, modulation = prepared.branch, prepared.modulation[key[0]]
    with onloaded(transformer):
        x = cache.recall(*key)
        if x is None:
            text = refined_text(transformer, prepared, timestep)
            x = trunk(transformer, latents, text, modulation=modulation, branch=branch, context=context)
        cache.remember(*key, x)
        return head(transformer, x, modulation=modulation, branch=branch, context=context, size=latents.shape)
