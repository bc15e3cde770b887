"""The whole runs of the reference in tests/golden, as calls of the pipeline."""

from typing import Any

import torch
from diffusers import FlowMatchEulerDiscreteScheduler
from PIL import Image
from torch import Tensor

from pipeline.hunyuan_custom import HunyuanCustomPipeline

SIZE: dict[str, Any] = {"height": 64, "width": 96, "num_frames": 9}

# tag -> shift, call arguments
RUNS: dict[str, tuple[float, dict[str, Any]]] = {
    "cfg7.5_s10_shift13": (13.0, {"num_inference_steps": 10}),
    "cfg7.5_s30_shift13_nocache": (13.0, {"num_inference_steps": 30}),
    "cfg7.5_s30_shift13_deepcache": (13.0, {"num_inference_steps": 30, "step_cache": "reference"}),
    "cfg1_s5_shift5": (5.0, {"num_inference_steps": 5, "guidance_scale": 1.0}),
    "cfg7.5_ip3_s5_shift7": (7.0, {"num_inference_steps": 5, "ip_cfg_scale": 3.0}),
    "emptyneg_s5_shift13": (13.0, {"num_inference_steps": 5}),
}


def with_config(pipe: HunyuanCustomPipeline, *, shift: float = 13.0, **config: Any) -> HunyuanCustomPipeline:
    """The same models with another schedule or pipeline config."""
    return HunyuanCustomPipeline(
        **(pipe.components | {"scheduler": FlowMatchEulerDiscreteScheduler(shift=shift)}), **config
    )


def words(case: dict[str, Any]) -> dict[str, Any]:
    return {"prompt": case["prompt"], "negative_prompt": case["negative"], "subject_name": case["name"]}


def identity_photo(text_io: dict[str, Tensor]) -> Image.Image:
    """The picture of the reference's runs: 28x28, shown to LLaVA 12 times enlarged without smoothing."""
    pixels = text_io["in.image_u8_28"][0].permute(1, 2, 0).repeat_interleave(12, 0).repeat_interleave(12, 1)
    return Image.fromarray(pixels.numpy())


def golden_latents(
    tag: str,
    pipe: HunyuanCustomPipeline,
    *,
    io: dict[str, Tensor],
    cases: dict[str, Any],
    identity: Image.Image,
    **options: Any,
) -> Tensor:
    """Latents of `pipe`'s models in the run `tag`, from the reference's noise and identity latents."""
    shift, arguments = RUNS[tag]
    case = cases["empty_neg" if tag.startswith("emptyneg") else "woman"]
    # The reference drew the sample of the white image (for ip-CFG) right after that of the identity image.
    generator = torch.Generator().manual_seed(1024)
    torch.randn(io["in.ref_latents"].shape, generator=generator)
    return with_config(pipe, shift=shift, reference_posterior="sample")(
        image=identity,
        latents=io["in.initial_noise_seed1024"],
        ref_latents=io["in.ref_latents"],
        generator=generator,
        output_type="latent",
        **(words(case) | SIZE | arguments | options),
    ).frames
