"""The sampling loop: Euler steps along the velocity that guidance composes from the branches' predictions."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from torch import Tensor

from pipeline.blocks import Rope
from pipeline.memory import onloaded
from pipeline.step_cache import StepCache
from pipeline.transformer import Branch, OnBlock, conditioning_vector, head, trunk


class Interrupted(Exception):
    """Raised by `on_block` to stop at once; the loop returns the latents of the last finished step."""


def sigma_schedule(scheduler: Any, steps: int) -> tuple[Tensor, Tensor]:
    """timesteps fp32 [steps] (0..1000) and sigmas fp32 [steps + 1] from 1 to 0, shifted as the scheduler's config says.

    The reference spaces steps + 1 points from 1 to 0; `set_timesteps(steps)` would end at 1/1000 instead.
    """
    scheduler.set_timesteps(sigmas=np.linspace(1, 0, steps + 1)[:-1])
    return scheduler.timesteps, scheduler.sigmas


def block_count(transformer: Any, branches: int, cache: StepCache) -> int:
    """How many transformer blocks a whole run takes."""
    trunk_blocks = len(transformer.transformer_blocks) + len(transformer.single_transformer_blocks) - 1
    return branches * (sum(cache.full_steps) * trunk_blocks + len(cache.full_steps))


def denoise(
    transformer: Any,
    latents: Tensor,
    branches: Sequence[Branch],
    rope: Rope,
    schedule: tuple[Tensor, Tensor],
    *,
    guidance_scale: float,
    ip_cfg_scale: float,
    cache: StepCache,
    on_block: OnBlock,
    on_step: Callable[[int, Tensor, Tensor], Tensor],
) -> Tensor:
    """latents: fp32 noise [1,16,T,h,w] -> fp32 latents. Branches go from least to most conditioned (`guidance.py`)."""
    timesteps, sigmas = schedule
    ip_scale, steps = ip_cfg_scale, len(timesteps)
    for step in range(steps):
        timestep = timesteps[step : step + 1].to(latents.device)
        try:
            v = [
                _predict(
                    transformer, latents, timestep, branch, rope=rope, cache=cache, key=(step, row), on_block=on_block
                )
                for row, branch in enumerate(branches)
            ]
        except Interrupted:
            break
        velocity = v[0]
        for less, more, scale in zip(v, v[1:], (guidance_scale, ip_scale), strict=False):
            velocity = velocity + scale * (more - less)
        latents = latents + (sigmas[step + 1] - sigmas[step]).item() * velocity
        latents = on_step(step, timesteps[step], latents)
        ip_scale -= (ip_cfg_scale - 1) / (steps - 1 + 1e-3)  # the reference lets it run out to about 1
    return latents


def _predict(
    transformer: Any,
    latents: Tensor,
    timestep: Tensor,
    branch: Branch,
    *,
    rope: Rope,
    cache: StepCache,
    key: tuple[int, int],
    on_block: OnBlock,
) -> Tensor:
    """Velocity fp32 [1,16,T,h,w] of one branch at `key` (step, row). Cached steps run the head on an earlier trunk."""
    with onloaded(transformer):
        vec = conditioning_vector(transformer, timestep, branch)
        x = cache.recall(*key)
        if x is None:
            x = trunk(transformer, latents, timestep=timestep, vec=vec, branch=branch, rope=rope, on_block=on_block)
        cache.remember(*key, x)
        return head(transformer, x, vec=vec, branch=branch, rope=rope, size=latents.shape, on_block=on_block)
