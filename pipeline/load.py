"""A folder in diffusers' layout -> a pipeline ready to run."""

import logging
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TypeAlias

import torch
from diffusers import AutoencoderKLHunyuanVideo, HunyuanVideoTransformer3DModel
from transformers import CLIPTextModel, LlavaForConditionalGeneration

from pipeline.attention.choice import choose_attention
from pipeline.attention.probe import Heads
from pipeline.fused.compiled import compiled_passes, is_compiled
from pipeline.fused.kernels import Kernels
from pipeline.fused.passes import EAGER_PASSES
from pipeline.hunyuan_custom import HunyuanCustomPipeline
from pipeline.memory.dtypes import DtypePolicy
from pipeline.memory.host_layers import is_modulation, keep_modulation_on_host
from pipeline.memory.placement import apply_memory_plan
from pipeline.memory.pretrained import load_pretrained
from pipeline.memory.stored_model import load_stored
from pipeline.options import ATTENTION, FUSED, MEMORY_PLAN, MLP_CHUNK, AttentionName, Fused, MemoryPlan
from pipeline.vae.network import layers_on
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
    on_progress: LoadProgress = _log,
) -> HunyuanCustomPipeline:
    """Strictly, from the files straight to where the weights stay, never with two copies in host memory. No downloads.

    `dtype`: "float32" or "bfloat16", see `DtypePolicy`. `memory_plan`: what stays on `device`, see `apply_memory_plan`.
    `fused`: how the passes over memory run, see `fused/`; they are compiled here. `mlp_chunk`: see `Kernels`.
    `attention`: the backend, see `choose_attention`; tried before anything is read.
    `on_progress` is called before each part is read, with one line that names it; by default the lines are logged.

    Raises:
        VerifyError: a file is missing, truncated or corrupt; known within seconds, and says which command to run.
        UnusableAttentionError: the attention backend that is named does not work here.
        ValueError: a weight is missing, left over or of another shape.
    """
    check_loadable(folder)
    policy = DtypePolicy.named(dtype, device)
    config = HunyuanVideoTransformer3DModel.load_config(folder / "transformer", local_files_only=True)
    heads = Heads(
        count=config["num_attention_heads"],
        width=config["attention_head_dim"],
        dtype=policy.transformer,
        device=torch.device(device),
    )
    attend = choose_attention(attention, heads).function
    home = device if memory_plan == "resident" else "cpu"
    stored = partial(load_stored, device=home, on_file=on_progress)
    on_progress("text_encoder")
    text_encoder = load_pretrained(LlavaForConditionalGeneration, folder / "text_encoder", policy.text_encoders, home)
    on_progress("text_encoder_2")
    text_encoder_2 = load_pretrained(CLIPTextModel, folder / "text_encoder_2", policy.text_encoders, home)
    transformer = stored(
        HunyuanVideoTransformer3DModel, folder / "transformer", policy.transformer, on_host=is_modulation
    )
    if torch.device(device).type != "cpu":
        keep_modulation_on_host(transformer)
    pipe = HunyuanCustomPipeline.from_pretrained(
        folder,
        local_files_only=True,
        transformer=transformer,
        vae=stored(AutoencoderKLHunyuanVideo, folder / "vae", policy.vae),
        text_encoder=text_encoder,
        text_encoder_2=text_encoder_2,
    )
    apply_memory_plan(pipe, memory_plan, device)
    passes = EAGER_PASSES
    if is_compiled(fused, torch.device(device)):
        on_progress("fused passes")
        passes = compiled_passes(transformer.config, policy.transformer, torch.device(device))
        layers_on(torch.device(device)).warm_up(torch.device(device), policy.vae)
    pipe.enable_kernels(Kernels(attention=attend, passes=passes, mlp_chunk=mlp_chunk))
    return pipe
