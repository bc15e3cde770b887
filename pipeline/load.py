"""A folder in diffusers' layout -> a pipeline ready to run."""

from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKLHunyuanVideo, HunyuanVideoTransformer3DModel
from transformers import CLIPTextModel, LlavaForConditionalGeneration

from pipeline.hunyuan_custom import HunyuanCustomPipeline
from pipeline.memory import DtypePolicy
from pipeline.stored_model import load_stored


def load_pipeline(folder: Path, *, device: str, dtype: str) -> HunyuanCustomPipeline:
    """Strictly: a weight that is missing, left over or of another shape raises ValueError. Nothing is downloaded.

    `dtype`: "float32" or "bfloat16", see `DtypePolicy`.
    """
    if not (folder / "model_index.json").is_file():
        raise FileNotFoundError(f"{folder} is not a pipeline in diffusers' layout: it has no model_index.json")
    policy = DtypePolicy.named(dtype, device)
    text_encoder = _pretrained(LlavaForConditionalGeneration, folder / "text_encoder", policy.text_encoders)
    text_encoder_2 = _pretrained(CLIPTextModel, folder / "text_encoder_2", policy.text_encoders)
    pipe = HunyuanCustomPipeline.from_pretrained(
        folder,
        local_files_only=True,
        transformer=load_stored(HunyuanVideoTransformer3DModel, folder / "transformer", policy.transformer),
        vae=load_stored(AutoencoderKLHunyuanVideo, folder / "vae", policy.vae),
        text_encoder=text_encoder,
        text_encoder_2=text_encoder_2,
    )
    return pipe.to(device)


def _pretrained(model_class: Any, folder: Path, dtype: torch.dtype) -> Any:
    """A transformers model, whose loader knows the older names of its weights."""
    model, report = model_class.from_pretrained(
        folder, dtype=dtype, local_files_only=True, output_loading_info=True, ignore_mismatched_sizes=True
    )
    if problems := {kind: sorted(map(str, found)) for kind, found in report.items() if found}:
        raise ValueError(f"{folder} does not hold exactly the weights of {model_class.__name__}: {problems}")
    return model.eval().requires_grad_(False)
