"""A folder in diffusers' layout -> a pipeline ready to run."""

import inspect
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKLHunyuanVideo, HunyuanVideoTransformer3DModel
from safetensors.torch import load_file
from torch import Tensor
from transformers import CLIPTextModel, LlavaForConditionalGeneration

from pipeline.fp8 import load_fp8_state_dict
from pipeline.hunyuan_custom import HunyuanCustomPipeline
from pipeline.memory import DtypePolicy

_BOOKKEEPING = ("_class_name", "_diffusers_version", "_name_or_path")


def load_pipeline(folder: Path, *, device: str, dtype: str) -> HunyuanCustomPipeline:
    """Strictly: a weight that is missing, left over or of another shape raises ValueError. Nothing is downloaded.

    `dtype`: "float32" or "bfloat16", see `DtypePolicy`.
    """
    policy = DtypePolicy.named(dtype, device)
    text_encoder = _pretrained(LlavaForConditionalGeneration, folder / "text_encoder", policy.text_encoders)
    text_encoder_2 = _pretrained(CLIPTextModel, folder / "text_encoder_2", policy.text_encoders)
    pipe = HunyuanCustomPipeline.from_pretrained(
        folder,
        local_files_only=True,
        transformer=_on_meta(HunyuanVideoTransformer3DModel, folder / "transformer", policy.transformer),
        vae=_on_meta(AutoencoderKLHunyuanVideo, folder / "vae", policy.vae),
        text_encoder=text_encoder,
        text_encoder_2=text_encoder_2,
    )
    return pipe.to(device)


def _on_meta(model_class: Any, folder: Path, dtype: torch.dtype) -> Any:
    """A diffusers model built without memory of its own, which then takes over the tensors of the files."""
    config = model_class.load_config(folder)
    known = inspect.signature(model_class.__init__).parameters
    with torch.device("meta"):
        model = model_class(**{key: value for key, value in config.items() if key in known})
    # Keys the class does not know (the VAE's, see `vae.py`). `from_config` would keep them too, but call them ignored.
    model.register_to_config(**{key: value for key, value in config.items() if key not in {*known, *_BOOKKEEPING}})
    state: dict[str, Tensor] = {}
    for file in sorted(folder.glob("*.safetensors")):
        state |= load_file(file)
    try:
        load_fp8_state_dict(model, {key: _as_computed(tensor, dtype) for key, tensor in state.items()})
    except RuntimeError as error:
        raise ValueError(f"{folder} does not hold exactly the weights of {model_class.__name__}: {error}") from error
    return model.eval().requires_grad_(False)


def _as_computed(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    """fp8 weights stay what they are."""
    return tensor if tensor.dtype == torch.float8_e4m3fn else tensor.to(dtype)


def _pretrained(model_class: Any, folder: Path, dtype: torch.dtype) -> Any:
    """A transformers model, whose loader knows the older names of its weights."""
    model, report = model_class.from_pretrained(
        folder, dtype=dtype, local_files_only=True, output_loading_info=True, ignore_mismatched_sizes=True
    )
    if problems := {kind: sorted(map(str, found)) for kind, found in report.items() if found}:
        raise ValueError(f"{folder} does not hold exactly the weights of {model_class.__name__}: {problems}")
    return model.eval().requires_grad_(False)
