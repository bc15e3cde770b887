"""What a preview costs beside the step that it is made after."""

import queue
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

import torch
from diffusers import FlowMatchEulerDiscreteScheduler

from pipeline.checks.bench.stopwatch import Case, Stopwatch
from pipeline.checks.bench.subject import Request
from pipeline.checks.bench.table import Row
from pipeline.denoise import sigma_schedule
from pipeline.preview import ColourMap, LatentPreviews, Preview

IN_STEP, ON_THREAD = "preview: what the loop and the device do", "preview: its thread encodes"
_STEPS, _CLIP_S = 30, 5.0


@dataclass(frozen=True, slots=True)
class _Pipe:
    scheduler: FlowMatchEulerDiscreteScheduler


def preview(request: Request, step_seconds: float | None, stopwatch: Stopwatch, *, stage: str) -> Iterator[Row]:
    """With a colour map of random weights: its frames are noise, the longest to encode."""
    latents = request.latents
    pipe = _Pipe(FlowMatchEulerDiscreteScheduler())
    sigma_schedule(pipe.scheduler, _STEPS)
    weight = torch.randn(3, latents.shape[1], generator=torch.Generator().manual_seed(0)).to(latents.device)
    colour_map = ColourMap(weight, torch.full((3,), 0.5, device=latents.device))
    tensors = {"latents": latents, "velocity": latents.clone()}
    shown: queue.SimpleQueue[Preview] = queue.SimpleQueue()

    def after_step() -> None:
        LatentPreviews(colour_map, shown.put)(pipe, 0, request.timestep, tensors)

    timed = stopwatch.minima([Case(IN_STEP, after_step)])
    if not timed[IN_STEP].error:
        timed |= stopwatch.minima([Case(ON_THREAD, partial(shown.get().webp, seconds=_CLIP_S))])
    for name, one in timed.items():
        yield Row(
            stage=stage,
            what=name,
            size=request.name,
            tokens=request.tokens,
            seconds=one.seconds,
            ratio=one.seconds / step_seconds if one.seconds and step_seconds else None,
            of="step",
            error=one.error,
        )
