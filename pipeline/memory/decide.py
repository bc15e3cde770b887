"""The memory plan of a process: what is configured, held against the memory that is there."""

import logging
from dataclasses import replace
from pathlib import Path

import torch

from pipeline.memory.model_sizes import ModelSizes
from pipeline.memory.planner import LARGEST, SMALLEST, TODAY, choose, lacks
from pipeline.options import MEMORY_PLAN, MEMORY_PLANS, Dtype, MemoryPlan, MemoryPlanChoice, StepCacheName
from weights.disk import available_memory

logger = logging.getLogger(__name__)


def decide_plan(
    folder: Path,
    *,
    device: torch.device,
    dtype: Dtype,
    wanted: MemoryPlanChoice,
    or_smaller: bool = False,
    step_cache: StepCacheName | None = None,
    processes: int = 1,
) -> MemoryPlan:
    """The plan to load a model under; call before anything of it is loaded. The log says why.

    `processes` on this machine do the same, each on a GPU of its own.

    "auto" is the fastest plan under which the largest clip of the endpoint fits, or the smallest plan. A plan that is
    named is taken, with a warning if larger clips do not fit: shorter ones may be all that is asked for. `or_smaller`:
    if it has no room for a single frame, the next one that has, or the smallest.

    Raises:
        ValueError: the named plan has no room for a single frame; names the setting, the reason and a plan that fits.
    """
    if device.type != "cuda":
        return MEMORY_PLAN if wanted == "auto" else wanted
    free, _ = torch.cuda.mem_get_info(device)
    host = available_memory() // processes
    return decided(
        folder,
        dtype=dtype,
        wanted=wanted,
        or_smaller=or_smaller,
        step_cache=step_cache,
        gpu=free + TODAY.context,
        host=host,
    )


def decided(
    folder: Path,
    *,
    dtype: Dtype,
    wanted: MemoryPlanChoice,
    gpu: int,
    host: int,
    or_smaller: bool = False,
    step_cache: StepCacheName | None = None,
) -> MemoryPlan:
    """As `decide_plan`, for a GPU and a machine with so many bytes free."""
    try:
        model = ModelSizes.of(folder, dtype)
    except (OSError, ValueError, LookupError, TypeError) as error:  # loading says more about such a folder
        logger.warning("memory_plan: the model's size is unknown (%s)", error)
        return MEMORY_PLAN if wanted == "auto" else wanted
    engine = replace(TODAY, step_cache=step_cache)
    best = choose(model, gpu=gpu, host=host, engine=engine)
    if wanted == "auto":
        logger.log(logging.INFO if best.fits else logging.WARNING, "memory_plan auto: %s", best.reason)
        return best.plan
    if or_smaller:
        plans = MEMORY_PLANS[MEMORY_PLANS.index(wanted) :]
        have_room = (plan for plan in plans if not lacks(model, plan, gpu=gpu, host=host, clip=SMALLEST, engine=engine))
        return next(have_room, MEMORY_PLANS[-1])
    fits = f"{best.plan!r} fits" if best.fits else f"{best.plan!r} needs least"
    if reason := lacks(model, wanted, gpu=gpu, host=host, clip=SMALLEST, engine=engine):
        raise ValueError(f"generator.memory_plan: {wanted!r} {reason}; {fits}")
    if reason := lacks(model, wanted, gpu=gpu, host=host, clip=LARGEST, engine=engine):
        logger.warning("memory_plan: %r %s; %s", wanted, reason, fits)
    return wanted
