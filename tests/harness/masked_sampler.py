"""The sampler on diffusers' own masked forward: an oracle that shares no code with ours.

Reference and video go through the stock class as one clip, all guidance rows as one padded batch with an attention
mask; only its rotary embedding is replaced, by a plain loop. A cached step is a whole forward whose last single block
gets its input of the last full step.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from diffusers import FlowMatchEulerDiscreteScheduler
from torch import Tensor, nn


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One guidance row: states [1,R,D] and mask [1,R] by position, pooled [1,P], reference [1,16,1,h,w]."""

    states: Tensor
    mask: Tensor
    pooled: Tensor
    reference: Tensor


def masked_sampler(
    model: Any,
    noise: Tensor,
    rows: Sequence[Row],
    *,
    steps: int,
    shift: float,
    guidance: float = 1.0,
    ip_guidance: float = 0.0,
    cached: Collection[int] = (),
) -> Tensor:
    """Latents [1,16,T,h,w] after all steps. Rows: [prompt], [negative, prompt] or [negative, prompt, prompt]."""
    scheduler = FlowMatchEulerDiscreteScheduler(shift=shift)
    scheduler.set_timesteps(sigmas=np.linspace(1, 0, steps + 1)[:-1])
    batch = {
        "encoder_hidden_states": torch.cat([row.states for row in rows]),
        "encoder_attention_mask": torch.cat([row.mask for row in rows]),
        "pooled_projections": torch.cat([row.pooled for row in rows]),
    }
    references = torch.cat([row.reference for row in rows])
    kept: list[Tensor] = []
    step = 0

    def last_block(_block: Any, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        if step not in cached:
            kept[:] = inputs[:2]  # image and text after all other blocks
        return (*kept, *inputs[2:])

    hook = model.single_transformer_blocks[-1].register_forward_pre_hook(last_block)
    own_rope, model.rope = model.rope, _PlainRope(model.config.rope_axes_dim, model.config.rope_theta)
    latents, ip_scale = noise, ip_guidance
    try:
        for step, timestep in enumerate(scheduler.timesteps):  # noqa: B007 - the hook reads it
            clip = torch.cat([references, latents.expand(len(rows), -1, -1, -1, -1)], dim=2)
            v = model(hidden_states=clip, timestep=timestep.expand(len(rows)), **batch).sample[:, :, 1:].split(1)
            velocity = v[0]
            if len(rows) > 1:
                velocity = v[0] + guidance * (v[1] - v[0])
            if len(rows) > 2:
                velocity = velocity + ip_scale * (v[2] - v[1])
                ip_scale -= (ip_guidance - 1) / (steps - 1 + 1e-3)
            latents = scheduler.step(velocity, timestep, latents).prev_sample
    finally:
        hook.remove()
        model.rope = own_rope
    return latents


class _PlainRope(nn.Module):
    """(t, y, x) of every token by three loops. The first frame, the reference, is at t = -1, one width to the right."""

    def __init__(self, axes: tuple[int, ...], theta: float) -> None:
        super().__init__()
        self.axes, self.theta = axes, theta

    def forward(self, latents: Tensor) -> tuple[Tensor, Tensor]:
        frames, height, width = latents.shape[2], latents.shape[3] // 2, latents.shape[4] // 2
        rows = []
        for frame in range(frames):
            for y in range(height):
                for x in range(width):
                    position = (frame - 1, y, x + (width if frame == 0 else 0))
                    rows.append(
                        [
                            coordinate * self.theta ** (-2 * (index // 2) / size)
                            for coordinate, size in zip(position, self.axes, strict=True)
                            for index in range(size)
                        ]
                    )
        angles = torch.tensor(rows, dtype=torch.float64)
        return angles.cos().float(), angles.sin().float()
