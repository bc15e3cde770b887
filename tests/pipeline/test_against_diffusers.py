"""The whole sampler against diffusers' own masked forward of the same weights, on shapes that no golden tensor has."""

from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler, HunyuanVideoTransformer3DModel
from torch import Tensor

from pipeline.conditioning.encoders import encode_pooled, encode_prompt
from pipeline.conditioning.identity_image import llava_view, rgb_pixels, vae_view, white_pixels
from pipeline.conditioning.prompt import tokenize
from pipeline.guidance import unconditional_mask
from pipeline.hunyuan_custom import HunyuanCustomPipeline
from pipeline.vae.codec import encode_reference
from tests.harness.masked_sampler import Row, masked_sampler

LONG_PROMPT = "An old fisherman mends a blue net on the pier while gulls circle; 海风 lifts his scarf. " * 12


@dataclass(frozen=True, kw_only=True)
class Case:
    heads: int = 2
    head_dim: int = 16
    axes: tuple[int, int, int] = (4, 6, 6)
    double: int = 1
    single: int = 2
    refiner: int = 1
    height: int = 64
    width: int = 48
    frames: int = 5
    steps: int
    guidance: float = 6.0
    shift: float = 13.0
    prompt: str = "ein Hund"
    negative: str = "blurring, static"
    ip_guidance: float = 0.0
    cached: Collection[int] | None = None  # written out by hand from the reference's proportions


CASES = {
    "portrait-long-prompt": Case(heads=3, single=3, height=96, steps=7, guidance=4.0, shift=9.0, prompt=LONG_PROMPT),
    "landscape-cjk": Case(
        heads=1,
        head_dim=48,
        axes=(8, 20, 20),
        double=3,
        single=1,
        refiner=3,
        height=48,
        width=112,
        frames=13,
        steps=4,
        guidance=9.5,
        shift=5.0,
        prompt="海风, 一位老人",
    ),
    "square-no-guidance": Case(
        heads=4,
        head_dim=24,
        axes=(4, 10, 10),
        double=2,
        refiner=2,
        width=64,
        frames=1,
        steps=12,
        guidance=1.0,
        prompt="",
    ),
    "long-negative-prompt": Case(steps=3, negative=LONG_PROMPT),
    "cache-12-steps": Case(steps=12, cached=[5, 6]),
    "cache-30-steps": Case(steps=30, cached=[11, 12, 14, 15, 17, 18, 20, 21]),
    "cache-50-steps": Case(steps=50, cached=[19, 20, 22, 23, 25, 26, 28, 29, 31, 32, 34, 35]),
    "cache-no-guidance": Case(steps=12, cached=[5, 6], guidance=1.0),
    "identity-guidance": Case(steps=5, ip_guidance=2.5),
    "cache-identity-guidance": Case(steps=12, cached=[5, 6], ip_guidance=3.0),
}


@pytest.mark.parametrize("name", CASES)
def test_sampler_equals_the_stock_masked_forward(
    name: str, pipe: HunyuanCustomPipeline, identity: Any, close: Any
) -> None:
    case = CASES[name]
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
    scheduler = FlowMatchEulerDiscreteScheduler(shift=case.shift)
    other = HunyuanCustomPipeline(**(pipe.components | {"transformer": model, "scheduler": scheduler}))
    reference = torch.randn(1, 16, 1, case.height // 8, case.width // 8)
    noise = torch.randn(1, 16, (case.frames + 3) // 4, case.height // 8, case.width // 8)
    latents = other(
        case.prompt,
        identity,
        negative_prompt=case.negative,
        height=case.height,
        width=case.width,
        num_frames=case.frames,
        num_inference_steps=case.steps,
        guidance_scale=case.guidance,
        ip_cfg_scale=case.ip_guidance,
        step_cache=None if case.cached is None else "reference",
        subject_name="fisherman",
        latents=noise,
        ref_latents=reference,
        output_type="latent",
    ).frames
    expected = masked_sampler(
        model,
        noise,
        _rows(pipe, case, identity, reference),
        steps=case.steps,
        shift=case.shift,
        guidance=case.guidance,
        ip_guidance=case.ip_guidance,
        cached=case.cached or (),
    )
    close(f"sampler against diffusers, {'cached' if case.cached else 'full'} steps", latents, expected, 2e-4)


def _rows(pipe: HunyuanCustomPipeline, case: Case, identity: Any, reference: Tensor) -> list[Row]:
    states, mask, pooled = _text(pipe, case.prompt, "fisherman", rgb_pixels(identity, alpha="white"))
    positive = Row(states=states, mask=mask, pooled=pooled, reference=reference)
    if case.guidance <= 1:
        return [positive]
    states, mask, pooled = _text(pipe, case.negative, "person", white_pixels())
    mask = unconditional_mask(mask, image_tokens=576)
    if not case.ip_guidance:
        return [Row(states=states, mask=mask, pooled=pooled, reference=reference), positive]
    view = vae_view(white_pixels(), case.height, case.width)
    white = encode_reference(pipe.vae, view, posterior="mode", generator=None)
    negative = Row(states=states, mask=mask, pooled=pooled, reference=white)
    return [negative, replace(positive, reference=white), positive]


def _text(pipe: HunyuanCustomPipeline, prompt: str, name: str, pixels: Any) -> tuple[Tensor, Tensor, Tensor]:
    llava = pipe.text_encoder
    tokens = tokenize(pipe.tokenizer, prompt, name, image_token_id=llava.config.image_token_id)
    pooled = encode_pooled(pipe.text_encoder_2, pipe.tokenizer_2, prompt, device=torch.device("cpu"))
    return (*encode_prompt(llava, tokens, llava_view(pixels, llava.config.vision_config.image_size)), pooled)
