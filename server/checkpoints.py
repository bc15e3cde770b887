"""The checkpoint of one request: written every few steps, read by the next attempt, ignored by anything else."""

import hashlib
from pathlib import Path

import torch

from pipeline.checkpoint import Checkpoint, can_start_at, fingerprint, read_checkpoint, write_checkpoint
from pipeline.step_cache import StepCache
from server.messages import Generate
from server.settings import GeneratorSettings


class Checkpoints:
    """Where `job.checkpoint` is, and whose it is: request, image, weights, dtype and kind of device."""

    def __init__(self, job: Generate, weights: str, settings: GeneratorSettings) -> None:
        name = None if settings.step_cache == "none" else settings.step_cache
        self._cache = StepCache.named(name, job.num_inference_steps)
        self._every = settings.checkpoint_every_steps
        self._path = Path(job.checkpoint)
        self._belongs_to = fingerprint(
            {
                "request": job.model_dump(exclude={"image", "output", "checkpoint"}),
                "image": hashlib.sha256(Path(job.image).read_bytes()).hexdigest(),
                "weights": weights,
                "dtype": settings.dtype,
                "device": torch.device(settings.device).type,
                "step_cache": settings.step_cache,
                "render_divisor": settings.render_divisor,
            }
        )

    def read(self) -> Checkpoint | None:
        """Where an earlier attempt of this very request got to."""
        return read_checkpoint(self._path, self._belongs_to) if self._every else None

    def keep(self, next_step: int, latents: torch.Tensor) -> None:
        """Called after every step; writes when it is time and the next step can be started at."""
        if self._every and next_step % self._every == 0 and can_start_at(next_step, self._cache):
            write_checkpoint(self._path, Checkpoint(next_step, latents), self._belongs_to)
