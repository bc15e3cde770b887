"""Where modules live: memory plans, and the offload hooks behind them."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from diffusers import DiffusionPipeline
from diffusers.hooks.group_offloading import LazyPrefetchGroupOffloadingHook

from pipeline.memory.device_copies import DeviceCopies, copies_to
from pipeline.memory.streaming import Turns, onload_in_turn, stream_blocks
from pipeline.options import MemoryPlan


def apply_memory_plan(
    pipe: DiffusionPipeline, plan: MemoryPlan, device: str, copies: DeviceCopies | None = None
) -> None:
    """Decide what stays on `device`, from fast and large to slow and small; the frames are the same.

    resident: everything.
    offload_encoders: one model at a time (diffusers' model offload): the encoders are moved off before the
        transformer is moved on.
    stream_blocks: a few transformer blocks at a time, the next ones copied while one computes; every other model as a
        whole while it works, LLaVA from its first task to its last (`memory/streaming.py`). The models start on the
        CPU. `copies`: how; by default as `device` can.
    """
    if plan == "resident":
        return
    if plan == "offload_encoders":
        pipe.enable_model_cpu_offload(device=device)
        return
    copies = copies or copies_to(torch.device(device))
    turns = Turns()
    ring = stream_blocks(pipe.transformer, copies, turns)
    for model in (pipe.text_encoder, pipe.text_encoder_2, pipe.vae):
        onload_in_turn(model, copies, turns, make_room=ring.clear, stays=model is pipe.text_encoder)


@contextmanager
def onloaded(module: object) -> Iterator[None]:
    """Runs the offload hooks of `module` around code that calls its submodules, or calls it.

    accelerate and diffusers attach offloading to a module's `forward`, which this pipeline does not call for the
    transformer, its blocks, LLaVA and the VAE. With streams, diffusers records the order of the blocks in the first
    pass: a cancelled pass offloads what it loaded, but must not count as that pass. If a hook fails, those that ran
    before it offload again.
    """
    accelerate_hook = getattr(module, "_hf_hook", None)
    hooks = [] if accelerate_hook is None else [accelerate_hook]
    if (registry := getattr(module, "_diffusers_hook", None)) is not None:
        hooks += registry.hooks.values()
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
