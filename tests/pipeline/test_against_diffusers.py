"""The whole sampler against diffusers' own masked forward of the same weights, on shapes the reference never saw.

Independent of ours: reference and video go through the stock class as one clip, both guidance rows as one padded batch
with an attention mask, and only its rotary embedding is replaced (by a plain loop).
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler, HunyuanVideoTransformer3DModel
from torch import Tensor, nn

from pipeline.encoders import encode_pooled, encode_prompt
from pipeline.guidance import unconditional_mask
from pipeline.hunyuan_custom import HunyuanCustomPipeline
from pipeline.identity_image import llava_view, rgb_pixels, white_pixels
from pipeline.prompt import tokenize

LONG_PROMPT = "An old fisherman mends a blue net on the pier while gulls circle; 海风 lifts his scarf. " * 12


@dataclass(frozen=True)
class Case:
    heads: int
    head_dim: int
    axes: tuple[int, int, int]
    double: int
    single: int
    refiner: int
    height: int
    width: int
    frames: int
    steps: int
    guidance: float
    shift: float
    prompt: str


CASES = [
    Case(3, 16, (4, 6, 6), 1, 3, 1, 96, 48, 5, 7, 4.0, 9.0, LONG_PROMPT),
    Case(1, 48, (8, 20, 20), 3, 1, 3, 48, 112, 13, 4, 9.5, 5.0, "ein Hund"),
    Case(4, 24, (4, 10, 10), 2, 2, 2, 64, 64, 1, 12, 1.0, 13.0, ""),
]


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
                            place * self.theta ** (-2 * (index // 2) / size)
                            for place, size in zip(position, self.axes, strict=True)
                            for index in range(size)
                        ]
                    )
        angles = torch.tensor(rows, dtype=torch.float64)
        return angles.cos().float(), angles.sin().float()


def _masked_sampler(model: Any, noise: Tensor, reference: Tensor, batch: dict[str, Tensor], case: Case) -> Tensor:
    """Batched guidance with the stock forward, stepped by the scheduler."""
    own_rope = model.rope
    model.rope = _PlainRope(case.axes, model.config.rope_theta)
    scheduler = FlowMatchEulerDiscreteScheduler(shift=case.shift)
    scheduler.set_timesteps(sigmas=np.linspace(1, 0, case.steps + 1)[:-1])
    latents, rows = noise, len(batch["encoder_hidden_states"])
    try:
        for timestep in scheduler.timesteps:
            clip = torch.cat([reference, latents], dim=2).expand(rows, -1, -1, -1, -1)
            v = model(hidden_states=clip, timestep=timestep.expand(rows), **batch).sample[:, :, 1:]
            velocity = v[:1] + case.guidance * (v[1:] - v[:1]) if rows == 2 else v
            latents = scheduler.step(velocity, timestep, latents).prev_sample
    finally:
        model.rope = own_rope
    return latents


@pytest.mark.parametrize("case", CASES, ids=["portrait-long-prompt", "landscape-cjk", "square-no-guidance"])
def test_sampler_equals_the_stock_masked_forward(
    case: Case, pipe: HunyuanCustomPipeline, identity: Any, close: Any
) -> None:
    torch.manual_seed(case.steps)
    model = HunyuanVideoTransformer3DModel(
        num_attention_heads=case.heads,
        attention_head_dim=case.head_dim,
        rope_axes_dim=case.axes,
        num_layers=case.double,
        num_single_layers=case.single,
        num_refiner_layers=case.refiner,
        text_embed_dim=32,
        pooled_projection_dim=24,
        guidance_embeds=False,
    ).eval()
    for parameter in model.parameters():
        parameter.normal_(std=0.1)
    components = pipe.components | {
        "transformer": model,
        "scheduler": FlowMatchEulerDiscreteScheduler(shift=case.shift),
    }
    other = HunyuanCustomPipeline(**components)
    reference = torch.randn(1, 16, 1, case.height // 8, case.width // 8)
    noise = torch.randn(1, 16, (case.frames + 3) // 4, case.height // 8, case.width // 8)
    latents = other(
        case.prompt,
        identity,
        negative_prompt="blurring, static",
        height=case.height,
        width=case.width,
        num_frames=case.frames,
        num_inference_steps=case.steps,
        guidance_scale=case.guidance,
        subject_name="fisherman",
        latents=noise,
        ref_latents=reference,
        output_type="latent",
    ).frames
    rows = [_text(pipe, case.prompt, "fisherman", rgb_pixels(identity, alpha="white"))]
    if case.guidance > 1:
        states, mask, pooled = _text(pipe, "blurring, static", "person", white_pixels())
        rows.insert(0, (states, unconditional_mask(mask, image_tokens=576), pooled))
    names = ("encoder_hidden_states", "encoder_attention_mask", "pooled_projections")
    batch = {name: torch.cat(parts) for name, parts in zip(names, zip(*rows, strict=True), strict=True)}
    close(
        "sampler against diffusers' masked forward",
        latents,
        _masked_sampler(model, noise, reference, batch, case),
        2e-4,
    )


def _text(pipe: HunyuanCustomPipeline, prompt: str, name: str, pixels: Any) -> tuple[Tensor, Tensor, Tensor]:
    llava = pipe.text_encoder
    tokens = tokenize(pipe.tokenizer, prompt, name, image_token_id=llava.config.image_token_id)
    pooled = encode_pooled(pipe.text_encoder_2, pipe.tokenizer_2, prompt, device=torch.device("cpu"))
    return (*encode_prompt(llava, tokens, llava_view(pixels, llava.config.vision_config.image_size)), pooled)
