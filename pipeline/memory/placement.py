"""Where modules live: memory plans, and the offload hooks behind them."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from diffusers import DiffusionPipeline
from diffusers.hooks import apply_group_offloading
from diffusers.hooks.group_offloading import LazyPrefetchGroupOffloadingHook

from pipeline.options import MemoryPlan


def apply_memory_plan(pipe: DiffusionPipeline, plan: MemoryPlan, device: str) -> None:
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


def stream_blocks(transformer: torch.nn.Module, device: str) -> None:
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
def onloaded(module: object) -> Iterator[None]:
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
