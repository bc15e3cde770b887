"""A folder in diffusers' layout -> a pipeline ready to run."""

import logging
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import TypeAlias

import torch
from diffusers import AutoencoderKLHunyuanVideo, HunyuanVideoTransformer3DModel, ModelMixin
from transformers import CLIPTextModel, LlavaForConditionalGeneration, PreTrainedModel

from pipeline.attention.choice import choose_attention
from pipeline.attention.probe import Heads
from pipeline.cpu_linear import choose_cpu_linear
from pipeline.fused.compiled import compiled_passes, is_compiled
from pipeline.fused.kernels import Kernels
from pipeline.fused.passes import EAGER_PASSES
from pipeline.hunyuan_custom import HunyuanCustomPipeline
from pipeline.memory.dtypes import DtypePolicy
from pipeline.memory.host_layers import keep_modulation_on_host
from pipeline.memory.placement import apply_memory_plan
from pipeline.memory.pretrained import load_pretrained
from pipeline.memory.stored_model import load_stored
from pipeline.memory.transfer import Transfer
from pipeline.options import (
    ATTENTION,
    CPU_LINEAR,
    FUSED,
    MEMORY_PLAN,
    MLP_CHUNK,
    AttentionName,
    CpuLinear,
    Fused,
    MemoryPlan,
)
from pipeline.vae.network import layers_on, use_layers
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
    fused: Fused = FUSED,
    mlp_chunk: int = MLP_CHUNK,
    attention: AttentionName = ATTENTION,
    cpu_linear: CpuLinear = CPU_LINEAR,
    on_progress: LoadProgress = _log,
) -> HunyuanCustomPipeline:
    """Strictly, from the files straight to where the weights stay, never with two copies in host memory. No downloads.

    `dtype`: "float32" or "bfloat16", see `DtypePolicy`. `memory_plan`: what stays on `device`, see `apply_memory_plan`.
    `fused`: how the passes over memory run, of blocks (`fused/`) and VAE (`vae/passes.py`); they are compiled here.
    `mlp_chunk`: see `Kernels`. `attention`: the backend, see `choose_attention`; tried before anything is read.
    `cpu_linear`: see `choose_cpu_linear`.
    `on_progress` is called before each part is read, with one line that names it; by default the lines are logged.

    Raises:
        VerifyError: a file is missing, truncated or corrupt; known within seconds, and says which command to run.
        UnusableAttentionError: the attention backend that is named does not work here.
        ValueError: a weight is missing, left over or of another shape.
    """
    check_loadable(folder)
    policy = DtypePolicy.named(dtype, device)
    place = torch.device(device)
    config = HunyuanVideoTransformer3DModel.load_config(folder / "transformer", local_files_only=True)
    heads = Heads(
        count=config["num_attention_heads"], width=config["attention_head_dim"], dtype=policy.transformer, device=place
    )
    attend = choose_attention(attention, heads).function
    with Transfer(place) if _lives_on(device, memory_plan) else nullcontext() as transfer:

        def stored(model_class: type[ModelMixin], name: str, to: torch.dtype) -> ModelMixin:
            model = load_stored(model_class, folder / name, None if transfer else to, on_file=on_progress)
            if model_class is HunyuanVideoTransformer3DModel and place.type != "cpu":
                keep_modulation_on_host(model, to)
            if transfer is not None:
                transfer.move(model, to)  # which casts on the device
            return model

        def pretrained(model_class: type[PreTrainedModel], name: str) -> PreTrainedModel:
            on_progress(name)
            model = load_pretrained(model_class, folder / name, policy.text_encoders, "cpu")
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
    choose_cpu_linear(pipe.transformer, cpu_linear, device=place, dtype=policy.transformer)
    apply_memory_plan(pipe, memory_plan, device)
    passes, compiled = EAGER_PASSES, is_compiled(fused, place)
    layers = layers_on(place, compiled=compiled)
    use_layers(pipe.vae, layers)
    if compiled:
        on_progress("fused passes")
        passes = compiled_passes(pipe.transformer.config, policy.transformer, place)
        layers.warm_up(place, policy.vae)
    pipe.enable_kernels(Kernels(attention=attend, passes=passes, mlp_chunk=mlp_chunk))
    return pipe


def _lives_on(device: str, memory_plan: MemoryPlan) -> bool:
    """Whether the weights are moved away from the files they are mapped to."""
    return memory_plan == "resident" and torch.device(device).type != "cpu"
