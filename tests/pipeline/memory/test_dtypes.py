"""What is computed in which dtype, as far as a CPU can show it; the reasons stand at `DtypePolicy`."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from pipeline import denoise
from pipeline.conditioning.encoders import encode_pooled, encode_prompt
from pipeline.conditioning.identity_image import llava_view, rgb_pixels, white_pixels
from pipeline.conditioning.prompt import tokenize
from pipeline.fused.passes import modulate
from pipeline.hunyuan_custom import HunyuanCustomPipeline
from pipeline.memory.dtypes import DtypePolicy, in_float32
from pipeline.vae.codec import decode_chunks, encode_moments
from tests.harness.golden_velocities import golden_velocities

SMALL: dict[str, Any] = {"height": 32, "width": 48, "num_frames": 5, "num_inference_steps": 2, "output_type": "latent"}
HALVES = {"fp16": torch.float16, "bf16": torch.bfloat16}


def test_policies() -> None:
    assert DtypePolicy.named("bfloat16", "cuda:0") == DtypePolicy(torch.bfloat16, torch.float16, torch.float16)
    assert DtypePolicy.named("bfloat16", "cpu") == DtypePolicy(torch.bfloat16, torch.float32, torch.float32)
    assert DtypePolicy.named("float32", "cuda") == DtypePolicy(torch.float32, torch.float32, torch.float32)
    with pytest.raises(ValueError, match="dtype must be"):
        DtypePolicy.named("int8", "cpu")


def test_widening_and_narrowing_loses_nothing() -> None:
    module = torch.nn.Linear(3, 3).half()
    before = copy.deepcopy(module.state_dict())
    with pytest.raises(KeyError), in_float32(module, torch.float16):
        assert module.weight.dtype == torch.float32
        raise KeyError
    assert all(torch.equal(module.state_dict()[key], value) for key, value in before.items())


def test_norm_and_modulation_are_fp32_in_a_bf16_block() -> None:
    """Rounded once, at the end: exactly the fp32 result in bf16."""
    x, shift, scale = (torch.randn(*shape).bfloat16() for shape in ((9, 64), (64,), (64,)))
    expected = modulate(x.float(), shift.float(), scale.float()).bfloat16()
    assert torch.equal(modulate(x, shift, scale), expected)


def test_every_norm_of_a_bf16_transformer_is_fp32_the_final_one_included(
    dit: Any, dit_io: dict[str, Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    narrow = copy.deepcopy(dit).bfloat16()
    seen: list[torch.dtype] = []
    layer_norm = F.layer_norm

    def record(x: Tensor, *arguments: Any, **options: Any) -> Tensor:
        seen.append(x.dtype)
        return layer_norm(x, *arguments, **options)

    monkeypatch.setattr(F, "layer_norm", record)
    entered: list[tuple[Tensor, ...]] = []
    hook = narrow.proj_out.register_forward_pre_hook(lambda _layer, inputs: entered.append(inputs))
    assert golden_velocities(narrow, dit_io).dtype == torch.float32
    hook.remove()
    own = [dtype for dtype in seen if dtype == torch.float32]
    assert len(own) == 2 * (2 * 4 + 2 * 1 + 1)  # branches, double blocks, single blocks, final layer
    # The others are the refiner's, which has weights of its own: torch's kernel adds up in fp32 inside.
    assert len(seen) - len(own) == 2 * 2 * 2
    assert all(x.dtype == torch.bfloat16 for (x,) in entered)


def test_guidance_and_euler_steps_of_a_bf16_transformer_are_fp32(
    pipe: HunyuanCustomPipeline, identity: Image.Image, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The reference mixes in bf16, whose rounding errors this avoids."""
    narrow = HunyuanCustomPipeline(**(pipe.components | {"transformer": copy.deepcopy(pipe.transformer).bfloat16()}))
    velocities: list[Tensor] = []
    predict = denoise._predict

    def record(*arguments: Any, **options: Any) -> Tensor:
        velocities.append(predict(*arguments, **options))
        return velocities[-1]

    monkeypatch.setattr(denoise, "_predict", record)
    noise = torch.randn(1, 16, 2, 4, 6, generator=torch.Generator().manual_seed(4))
    latents = narrow("a dog", identity, latents=noise, **(SMALL | {"num_inference_steps": 1})).frames
    without, with_prompt = velocities
    assert without.dtype == with_prompt.dtype == latents.dtype == torch.float32
    assert torch.equal(latents, noise - (without + 7.5 * (with_prompt - without)))  # one step from sigma 1 to 0


def test_latents_stay_fp32_around_16_bit_models(pipe: HunyuanCustomPipeline, identity: Image.Image) -> None:
    parts = {name: copy.deepcopy(pipe.components[name]) for name in ("transformer", "text_encoder", "text_encoder_2")}
    narrow = HunyuanCustomPipeline(**(pipe.components | {name: part.bfloat16() for name, part in parts.items()}))
    seen: list[torch.dtype] = []

    def on_step(_pipe: Any, _step: int, _timestep: Any, tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        seen.append(tensors["latents"].dtype)
        return tensors

    latents = narrow("a dog", identity, callback_on_step_end=on_step, **SMALL).frames
    assert seen == [torch.float32] * 2
    assert torch.isfinite(latents).all()


# The tolerances are a few roundings (fp16 2^-11, bf16 2^-8) of the largest values: 1 of the VAE's, 8 of LLaVA's.
@pytest.mark.parametrize(("name", "worst", "rms"), [("fp16", 0.02, 0.003), ("bf16", 0.12, 0.03)])
def test_a_16_bit_vae_is_within_its_noise_of_the_reference(
    name: str, worst: float, rms: float, build_vae: Callable[..., Any], vae_io: dict[str, Tensor], close: Any
) -> None:
    vae = build_vae().to(HALVES[name])
    moments = encode_moments(vae, vae_io["in.tile_image_u8"] / 127.5 - 1)
    _within(f"{name} VAE", moments, vae_io["causal.tile_image.moments"], worst, rms, close)
    frames = torch.cat(list(decode_chunks(vae, vae_io["in.z_tile"] * vae.config.scaling_factor)), dim=2)
    expected = (vae_io["causal.z_tile.decoded"] / 2 + 0.5).clamp(0, 1)
    _within(f"{name} VAE", frames, expected, worst, rms, close)
    assert vae.dtype == HALVES[name]


@pytest.mark.parametrize(("name", "worst", "rms"), [("fp16", 0.03, 0.005), ("bf16", 0.25, 0.04)])
def test_16_bit_encoders_are_within_their_noise_of_the_reference(
    name: str,
    worst: float,
    rms: float,
    pipe: HunyuanCustomPipeline,
    identity: Image.Image,
    text_cases: dict[str, Any],
    text_io: dict[str, Tensor],
    close: Any,
) -> None:
    llava, clip = (copy.deepcopy(model).to(HALVES[name]) for model in (pipe.text_encoder, pipe.text_encoder_2))
    case = text_cases["woman"]
    sides = (
        ("pos", case["prompt"], case["name"], rgb_pixels(identity, alpha="white")),
        ("neg", case["negative"], "person", white_pixels()),
    )
    for side, prompt, subject, pixels in sides:
        tokens = tokenize(pipe.tokenizer, prompt, subject, image_token_id=llava.config.image_token_id)
        states, _ = encode_prompt(llava, tokens, llava_view(pixels, 336))
        _within(f"{name} LLaVA", states, text_io[f"woman.{side}.hidden"], worst, rms, close)
        pooled = encode_pooled(clip, pipe.tokenizer_2, prompt, device=torch.device("cpu"))
        _within(f"{name} CLIP", pooled, text_io[f"woman.clip.{side}_pooled"], worst, rms, close)


def _within(piece: str, actual: Tensor, expected: Tensor, worst: float, rms: float, close: Any) -> None:
    close(f"{piece}, worst", actual, expected, worst)
    close(f"{piece}, rms", (actual.float() - expected).square().mean().sqrt(), torch.zeros(()), rms)
