"""Where modules live and in which dtype they compute."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import torch
from diffusers.hooks import apply_group_offloading
from diffusers.hooks.group_offloading import LazyPrefetchGroupOffloadingHook


@dataclass(frozen=True, slots=True)
class DtypePolicy:
    """Dtypes of the weights by component; what is computed with them, and how wide, is the same under every policy.

    transformer: Linear layers and attention in its dtype, fp8 layers taken back to it one by one. As under the
        autocast the reference runs in, LayerNorms and the scale and shift behind them are fp32 and rounded once; so are
        the rotary tables and the text mean of the refiner. Velocities leave it as fp32.
    latents, noise, guidance, Euler steps: fp32 always. (The reference mixes guidance in bf16.)
    text_encoders: LLaVA and CLIP, fp16 as in the reference; their states enter the transformer in its dtype.
    vae: fp16 as in the reference. A tile that overflows is done again in fp32; tiles are blended, and the identity's
        posterior read, in fp32.
    """

    transformer: torch.dtype
    text_encoders: torch.dtype
    vae: torch.dtype

    @classmethod
    def named(cls, name: str, device: str) -> "DtypePolicy":
        """ "float32" everywhere, or "bfloat16" as published: bf16 transformer, fp16 encoders and VAE.

        fp16 convolutions have no fast CPU kernels, and a VAE is small: on the CPU those parts stay fp32.
        """
        if name == "float32":
            return cls(torch.float32, torch.float32, torch.float32)
        if name == "bfloat16":
            half = torch.float32 if torch.device(device).type == "cpu" else torch.float16
            return cls(torch.bfloat16, half, half)
        raise ValueError(f"dtype must be 'float32' or 'bfloat16', got {name!r}")


MemoryPlan: TypeAlias = Literal["resident", "offload_encoders", "stream_blocks"]


def apply_memory_plan(pipe: Any, plan: MemoryPlan, device: str) -> None:
    """Decide what stays on `device`, from fast and large to slow and small; the frames are the same.

    resident: everything. offload_encoders: one model at a time (diffusers' model offload): the encoders leave before
    the transformer comes. stream_blocks: one transformer block at a time, the next one copied while this one computes
    (diffusers' group offload); the encoders layer by layer, the VAE whole. The offloaded models start on the CPU.
    """
    if plan == "resident":
        return
    if plan == "offload_encoders":
        pipe.enable_model_cpu_offload(device=device)
        return
    stream_blocks(pipe.transformer, device)
    for model in (pipe.text_encoder, pipe.text_encoder_2):
        apply_group_offloading(model, offload_type="leaf_level", **_streams(device))
    # The VAE has no list of blocks at its top, so all of it is one group, there from its first tile to its last. Layers
    # coming and going would bring their 16-bit weights back in the middle of a pass in fp32 (`in_float32`).
    home = torch.device(device)
    apply_group_offloading(pipe.vae, offload_type="block_level", num_blocks_per_group=1, onload_device=home)


def stream_blocks(transformer: Any, device: str) -> None:
    """One block at a time on `device`; between its turns a block is where it was loaded: mapped to its file."""
    apply_group_offloading(transformer, offload_type="block_level", num_blocks_per_group=1, **_streams(device))


def _streams(device: str) -> dict[str, Any]:
    """Without `low_cpu_mem_usage`, diffusers copies every weight into pinned memory of this process, 42 GB for each
    rank. With it a block is pinned for its copy alone (at most 0.7 GB, while the block before computes for seconds) and
    the weights stay in the page cache, which ranks share and the system may drop.
    """
    on_gpu = torch.device(device).type == "cuda"
    return {"onload_device": torch.device(device), "use_stream": on_gpu, "low_cpu_mem_usage": on_gpu}


@contextmanager
def onloaded(module: Any) -> Iterator[None]:
    """Fires the offload hooks of `module` around code that drives its submodules.

    Offloading of accelerate and diffusers hangs on a module's `forward`, which this pipeline does not call for the
    transformer, its blocks, LLaVA and the VAE. With streams, diffusers learns the order of the blocks from the first
    pass: one that was broken off offloads what it loaded, but must not count as that pass. If a hook fails, those
    that fired before it offload again.
    """
    if (accelerate_hook := getattr(module, "_hf_hook", None)) is not None:
        accelerate_hook.pre_forward(module)
    registry = getattr(module, "_diffusers_hook", None)
    hooks = [] if registry is None else list(registry.hooks.values())
    entered = []
    completed = False
    try:
        for hook in hooks:
            hook.pre_forward(module)
            entered.append(hook)
        yield
        completed = True
    finally:
        for hook in reversed(entered):
            if completed or not isinstance(hook, LazyPrefetchGroupOffloadingHook):
                hook.post_forward(module, None)


@contextmanager
def in_float32(module: torch.nn.Module, dtype: torch.dtype) -> Iterator[None]:
    """Holds `module` (of `dtype`, 16 bit) in fp32 for a while. Widening and narrowing again loses nothing."""
    module.to(dtype=torch.float32)
    try:
        yield
    finally:
        module.to(dtype=dtype)
