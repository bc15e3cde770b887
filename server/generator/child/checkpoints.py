"""The checkpoint of one request: written every few steps, read by the next attempt, ignored by anything else.

With several ranks the first one reads and writes it; all have the same latents after each step.
"""

import hashlib
import logging
from importlib.metadata import version
from pathlib import Path

import torch

from pipeline.checkpoint import Checkpoint, fingerprint, read_checkpoint, write_checkpoint
from pipeline.language.writer import Words
from pipeline.parallel.ranks import Ranks
from pipeline.step_cache import can_start_at, full_steps
from server.generator.messages import Generate
from server.settings import GeneratorSettings

logger = logging.getLogger(__name__)

# Of a request: the paths, and what does not change its frames.
_NOT_IN_FRAMES = {"image", "output", "checkpoint", "cut_out", "thumbnail", "check_safety", "log_prompt"}


class Checkpoints:
    """Where `job.checkpoint` is, and whose it is: request, image, weights, code, dtype, kernels, kind and number of
    devices."""

    def __init__(
        self, job: Generate, weights: str, settings: GeneratorSettings, ranks: Ranks | None, *, alpha: str
    ) -> None:
        self._full_steps = full_steps(settings.step_cache_or_none, job.num_inference_steps)
        self._ranks = ranks
        self._every = settings.checkpoint_every_steps if ranks is None or ranks.rank == 0 else 0
        self._path = Path(job.checkpoint)
        self._belongs_to = fingerprint(
            {
                "request": job.model_dump(exclude=_NOT_IN_FRAMES),
                "image": hashlib.sha256(Path(job.image).read_bytes()).hexdigest(),
                "alpha": alpha,
                "weights": weights,
                "code": [version("hunyuan-custom-server"), torch.__version__],
                "dtype": settings.dtype,
                "device": torch.device(settings.device).type,
                "ranks": settings.ranks,
                "step_cache": settings.step_cache,
                "kernels": [settings.attention, settings.fused, settings.mlp_chunk, settings.cpu_linear],
                "step_cache_threshold": settings.step_cache_threshold,
                "render_divisor": settings.render_divisor,
            }
        )

        self._found = read_checkpoint(self._path, self._belongs_to) if self._every else None

    @property
    def words(self) -> Words | None:
        """Those of an earlier attempt of this very request."""
        if self._found is None:
            return None
        return Words(prompt=self._found.prompt, subject_name=self._found.subject_name)

    def start(self, noise: torch.Tensor) -> tuple[int, torch.Tensor]:
        """The step to start at and the latents before it: where an earlier attempt of this very request got to."""
        step, latents = (0, noise) if self._found is None else (self._found.next_step, self._found.latents)
        if self._ranks is None:
            return step, latents
        return int(self._ranks.as_first(torch.tensor(step))), self._ranks.as_first(latents)

    def keep(self, next_step: int, latents: torch.Tensor, words: Words) -> None:
        """Called after every step; writes when it is time and the next step can be started at."""
        if self._every and next_step % self._every == 0 and can_start_at(next_step, self._full_steps):
            try:
                checkpoint = Checkpoint(next_step, latents, words.prompt, words.subject_name)
                write_checkpoint(self._path, checkpoint, self._belongs_to)
            except OSError as error:  # a full disk costs the checkpoint, not the job
                logger.warning("no checkpoint at step %d: %s", next_step, error)
