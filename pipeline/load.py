"""A folder in diffusers' layout -> a pipeline ready to run."""

import logging
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import TypeAlias

import torch
from diffusers import AutoencoderKLHunyuanVideo, HunyuanVideoTransformer3DModel, ModelMixin
from transformers import CLIPTextModel, LlavaForConditionalGeneration, PreTrainedModel

from pipeline.hunyuan_custom import HunyuanCustomPipeline
from pipeline.memory.dtypes import DtypePolicy
from pipeline.memory.placement import apply_memory_plan
from pipeline.memory.stored_model import load_stored
from pipeline.memory.transfer import Transfer
from pipeline.options import MEMORY_PLAN, MemoryPlan
from weights.checks.loading_check import check_loadable

logger = logging.getLogger(__name__)

LoadProgress: TypeAlias = Callable[[str], None]
"""Called with "text_encoder", "transformer: file 2 of 5" and the like, in the order of loading."""


def _log(part: str) -> None:
    logger.info("loading %s", part)


def load_pipeline(
    folder: Path,
    *,
    device: str,
    dtype: str,
    memory_plan: MemoryPlan = MEMORY_PLAN,
    on_progress: LoadProgress = _log,
) -> HunyuanCustomPipeline:
    """Strictly, from the files straight to where the weights stay, never with two copies in host memory. No downloads.

    `dtype`: "float32" or "bfloat16", see `DtypePolicy`. `memory_plan`: what stays on `device`, see `apply_memory_plan`.
    `on_progress` is called before each part is read, with one line that names it; by default the lines are logged.

    Raises:
        VerifyError: a file is missing, truncated or corrupt; known within seconds, and says which command to run.
        ValueError: a weight is missing, left over or of another shape.
    """
    check_loadable(folder)
    policy = DtypePolicy.named(dtype, device)
    with Transfer(torch.device(device)) if _lives_on(device, memory_plan) else nullcontext() as transfer:

        def stored(model_class: type[ModelMixin], name: str, to: torch.dtype) -> ModelMixin:
            model = load_stored(model_class, folder / name, None if transfer else to, on_file=on_progress)
            if transfer is not None:
                transfer.move(model, to)  # which casts on the device
            return model

        def pretrained(model_class: type[PreTrainedModel], name: str) -> PreTrainedModel:
            on_progress(name)
            model = _pretrained(model_class, folder / name, policy.text_encoders)
            if transfer is not None:
                transfer.move(model)
            return model

        pipe = HunyuanCustomPipeline.from_pretrained(
            folder,
            local_files_only=True,
            text_encoder=pretrained(LlavaForConditionalGeneration, "text_encoder"),
            text_encoder_2=pretrained(CLIPTextModel, "text_encoder_2"),
            transformer=stored(HunyuanVideoTransformer3DModel, "transformer", policy.transformer),
            vae=stored(AutoencoderKLHunyuanVideo, "vae", policy.vae),
        )
    apply_memory_plan(pipe, memory_plan, device)
    return pipe


def _lives_on(device: str, memory_plan: MemoryPlan) -> bool:
    """Whether the weights are moved away from the files they are mapped to."""
    return memory_plan == "resident" and torch.device(device).type != "cpu"


def _pretrained(model_class: type[PreTrainedModel], folder: Path, dtype: torch.dtype) -> PreTrainedModel:
    """A model of transformers, by its own loader, which knows the older names of its weights."""
    model, report = model_class.from_pretrained(
        folder,
        dtype=dtype,
        local_files_only=True,
        output_loading_info=True,
        ignore_mismatched_sizes=True,
    )
    if problems := {kind: sorted(map(str, found)) for kind, found in report.items() if found}:
        raise ValueError(f"{folder} does not hold exactly the weights of {model_class.__name__}: {problems}")
    return model.eval().requires_grad_(False)
