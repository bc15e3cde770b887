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

    resident: everything.
    offload_encoders: one model at a time (diffusers' model offload): the encoders are moved off before the
        transformer is moved on.
    stream_blocks: one transformer block at a time, the next one copied while this one computes (diffusers' group
        offload); the encoders layer by layer, the VAE whole. The offloaded models start on the CPU.
    """
    if plan == "resident":
        return
    if plan == "offload_encoders":
        pipe.enable_model_cpu_offload(device=device)
        return
    stream_blocks(pipe.transformer, device)
    for model in (pipe.text_encoder, pipe.text_encoder_2):
        apply_group_offloading(model, offload_type="leaf_level", **_streams(device))
    # The VAE has no list of blocks at its top level, so all of it is one group, on the device from its first tile to
    # its last. Offloaded layer by layer, it would get 16-bit weights back in the middle of a pass in fp32.
    home = torch.device(device)
    apply_group_offloading(pipe.vae, offload_type="block_level", num_blocks_per_group=1, onload_device=home)


def stream_blocks(transformer: torch.nn.Module, device: str) -> None:
    """One block at a time on `device`; the others stay where they were loaded: mapped to their file."""
    apply_group_offloading(transformer, offload_type="block_level", num_blocks_per_group=1, **_streams(device))


def _streams(device: str) -> dict[str, Any]:
    """Options of diffusers' group offload.

    Without `low_cpu_mem_usage` it copies every weight into pinned memory of this process, 42 GB for each rank. With it
    a block is pinned only while it is copied (at most 0.7 GB, while the block before computes for seconds), and the
    weights stay in the page cache, which ranks share and the system may drop.
    """
    on_gpu = torch.device(device).type == "cuda"
    return {"onload_device": torch.device(device), "use_stream": on_gpu, "low_cpu_mem_usage": on_gpu}


@contextmanager
def onloaded(module: object) -> Iterator[None]:
    """Runs the offload hooks of `module` around code that calls its submodules.

    accelerate and diffusers attach offloading to a module's `forward`, which this pipeline does not call for the
    transformer, its blocks, LLaVA and the VAE. With streams, diffusers records the order of the blocks in the first
    pass: a cancelled pass offloads what it loaded, but must not count as that pass. If a hook fails, those that ran
    before it offload again.
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
