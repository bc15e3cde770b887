"""The sampling loop: Euler steps along the velocity that guidance composes from the branches' predictions."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np
from torch import Tensor

from pipeline.components import Scheduler, Transformer
from pipeline.fused.kernels import EAGER, Kernels
from pipeline.memory.placement import onloaded
from pipeline.options import STEP_CACHE_THRESHOLD, StepCacheName
from pipeline.prepared import Prepared, prepare, refined_text
from pipeline.shapes import whole_number
from pipeline.share import Share
from pipeline.step_cache import FirstBlock, FirstBlockCache, StepCache, can_start_at, full_steps
from pipeline.transformer import Branch, Context, OnBlock, first_block, head, trunk

OnStep: TypeAlias = Callable[[int, Tensor, Tensor, Tensor], Tensor]
"""After a step: its number, timestep, latents, and the velocity they came along -> the latents to go on with."""


class Interrupted(Exception):
    """Raised by `on_block` to stop at once; the loop returns the latents of the last finished step."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """How to sample: `guidance_scale` up to 1 is off, `ip_cfg_scale` (guidance by the identity) is off at 0."""

    steps: int
    guidance_scale: float
    ip_cfg_scale: float
    step_cache: StepCacheName | None
    step_cache_threshold: float = STEP_CACHE_THRESHOLD  # of "first_block", see there
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
        if not self.step_cache_threshold >= 0:
            raise ValueError(f"`step_cache_threshold` must not be negative, got {self.step_cache_threshold}")
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
    """How many transformer blocks a whole run reports. What "reference" leaves out is known before; what "first_block"
    leaves out counts as done.
    """
    ahead = sampling.full_steps[sampling.start_step :]
    trunks = sum(ahead) if sampling.step_cache == "reference" else len(ahead)
    return branches * (trunks * _trunk_blocks(transformer) + len(ahead))


def _trunk_blocks(transformer: Transformer) -> int:
    return len(transformer.transformer_blocks) + len(transformer.single_transformer_blocks) - 1


def denoise(
    transformer: Transformer,
    latents: Tensor,
    branches: Sequence[Branch],
    *,
    share: Share,
    schedule: tuple[Tensor, Tensor],
    sampling: Sampling,
    on_block: OnBlock,
    on_step: OnStep,
    kernels: Kernels = EAGER,
    cache: StepCache | None = None,
) -> Tensor:
    """latents: fp32 noise [1,16,T,h,w] -> fp32 latents. Branches go from least to most conditioned (`guidance.py`).

    `cache`: the request's own; made here, as `sampling` says, for a caller who does not look into it.
    """
    cache = _cache(sampling, len(branches)) if cache is None else cache
    kernels = replace(kernels, attention=share.attention(kernels.attention))
    context = Context(share=share, kernels=kernels, on_block=on_block)
    timesteps, sigmas = schedule
    on_device = timesteps.to(latents.device)  # copied once: a copy waits for everything queued on the device
    rows = share.rows(len(branches))
    with onloaded(transformer):
        given = prepare(transformer, [branches[row] for row in rows], on_device, start_step=sampling.start_step)
    prepared = dict(zip(rows, given, strict=True))
    for step in range(sampling.start_step, sampling.steps):
        timestep = on_device[step : step + 1]
        try:
            own = predictions(transformer, latents, timestep, prepared, context=context, cache=cache, step=step)
            v = share.predictions(own)
        except Interrupted:
            break
        velocity = v[0]
        if sampling.guided:
            velocity = v[0] + sampling.guidance_scale * (v[1] - v[0])
        if sampling.ip_cfg_scale > 0:
            velocity = velocity + sampling.ip_scale(step) * (v[2] - v[1])
        latents = latents + (sigmas[step + 1] - sigmas[step]).item() * velocity
        latents = on_step(step, timesteps[step], latents, velocity)
    return latents


def _cache(sampling: Sampling, branches: int) -> StepCache:
    if sampling.step_cache == "first_block":
        return FirstBlockCache(sampling.full_steps, sampling.step_cache_threshold, branches)
    return StepCache(sampling.full_steps)


def predictions(
    transformer: Transformer,
    latents: Tensor,
    timestep: Tensor,
    prepared: Mapping[int, Prepared],
    *,
    context: Context,
    cache: StepCache,
    step: int,
) -> list[Tensor]:
    """Velocities fp32 [1,16,T,h,w] of the branches computed here; `prepared`: by row."""
    firsts: dict[int, FirstBlock] = {}
    if isinstance(cache, FirstBlockCache) and cache.undecided(step):
        for row, given in prepared.items():
            with onloaded(transformer):
                firsts[row] = _first_block(transformer, latents, timestep, given, context=context, step=step)
        cache.decide(step, firsts, context.share.total)
    return [
        _predict(
            transformer,
            latents,
            timestep,
            given,
            context=context,
            cache=cache,
            key=(step, row),
            first=firsts.pop(row, None),
        )
        for row, given in prepared.items()
    ]


def _predict(
    transformer: Transformer,
    latents: Tensor,
    timestep: Tensor,
    prepared: Prepared,
    *,
    context: Context,
    cache: StepCache,
    key: tuple[int, int],
    first: FirstBlock | None = None,
) -> Tensor:
    """Velocity fp32 [1,16,T,h,w] of one branch at `key` (step, row). Cached steps run the head on what the cache has of
    an earlier trunk; `first`: the first block, where it was computed to decide on that.
    """
    step, branch = key[0], prepared.branch
    modulation = prepared.modulation[step]
    with onloaded(transformer):
        if first is None and cache.shows_first_block(step):
            first = _first_block(transformer, latents, timestep, prepared, context=context, step=step)
        x = cache.recall(*key, first)
        if x is None:
            text = refined_text(transformer, prepared, timestep) if first is None else first.text
            x = trunk(transformer, latents, text, modulation=modulation, branch=branch, context=context, first=first)
        elif first is not None:
            for _ in range(_trunk_blocks(transformer) - 1):
                context.on_block()
        cache.remember(*key, x, first)
        return head(transformer, x, modulation=modulation, branch=branch, context=context, size=latents.shape)


def _first_block(
    transformer: Transformer, latents: Tensor, timestep: Tensor, prepared: Prepared, *, context: Context, step: int
) -> FirstBlock:
    text, modulation = refined_text(transformer, prepared, timestep), prepared.modulation[step]
    return first_block(transformer, latents, text, modulation=modulation, branch=prepared.branch, context=context)
