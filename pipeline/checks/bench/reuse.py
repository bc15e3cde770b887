"""The step cache: what it leaves out, and how far the frames are from those without it.

Random weights prove the mechanism only: what a cache does to the videos of the trained model, they cannot say.
"""

import math
from collections.abc import Iterator
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from pipeline.checks.bench.decode import decoded
from pipeline.checks.bench.operations import Part, flops, of_step
from pipeline.checks.bench.stopwatch import OUT_OF_TIME, Stopwatch
from pipeline.checks.bench.subject import Request, Subject
from pipeline.checks.bench.table import Row
from pipeline.options import STEP_CACHE_THRESHOLD
from pipeline.step_cache import FirstBlockCache, StepCache, full_steps

STAGE = "reuse"
RANDOM = "random weights: no measure of quality"


def reuse(request: Request, subject: Subject, stopwatch: Stopwatch, *, steps: int) -> Iterator[Row]:
    """A whole denoising without a cache, and with each."""
    expected: Tensor | None = None
    base = 0.0
    for name, cache in _caches(steps, len(request.branches)).items():
        if stopwatch.expired:
            yield Row(stage=STAGE, what=name, size=request.name, error=OUT_OF_TIME)
            continue
        seconds, latents = stopwatch.result(partial(request.denoised, steps, cache))
        frames = decoded(subject, latents)
        if expected is None:
            expected, base = frames, seconds
        reused = _reused(cache)
        notes = [
            f"{reused} of {steps} steps reuse",
            f"{_left_out(request, cache, steps):.1%} of the operations left out",
        ]
        if cache is not None:
            decibels = psnr(frames, expected)
            notes.append("equal frames" if decibels == math.inf else f"PSNR {decibels:.1f} dB")
            notes.append(f"SSIM {ssim(frames, expected):.3f}")
            notes += [RANDOM] if subject.folder is None else []
        yield Row(
            stage=STAGE,
            what=name,
            size=request.name,
            tokens=request.tokens,
            seconds=seconds,
            ratio=seconds / base,
            of="no cache",
            note=", ".join(notes),
        )


def _caches(steps: int, branches: int) -> dict[str, StepCache | None]:
    schedule = full_steps("first_block", steps)
    return {
        "no cache": None,
        "reference": StepCache(full_steps("reference", steps)),
        f"first_block, threshold {STEP_CACHE_THRESHOLD:g}": FirstBlockCache(schedule, STEP_CACHE_THRESHOLD, branches),
        "first_block, wherever it may": FirstBlockCache(schedule, math.inf, branches),
    }


def _reused(cache: StepCache | None) -> int:
    if cache is None:
        return 0
    return len(cache.reused) if isinstance(cache, FirstBlockCache) else cache.full_steps.count(False)


def _left_out(request: Request, cache: StepCache | None, steps: int) -> float:
    """Of all operations of the denoising."""
    found = of_step(request.transformer, request.branches, request.tokens)
    # The reference's cached steps compute the conditioning vector, a few rows of "embedding": not counted here.
    skipped: list[Part] = ["block"]
    if not isinstance(cache, FirstBlockCache):
        skipped += ["first block", "embedding"]
    return _reused(cache) * (1 - flops(found, without=skipped) / flops(found)) / steps


def psnr(frames: Tensor, expected: Tensor) -> float:
    """dB, of uint8 frames; infinite for equal ones."""
    error = (frames.double() - expected.double()).pow(2).mean().item()
    return math.inf if error == 0 else 10 * math.log10(255**2 / error)


def ssim(frames: Tensor, expected: Tensor) -> float:
    """Structural similarity of uint8 [F,H,W,3], channel by channel, with the 11 x 11 Gaussian window of its authors."""
    offsets = torch.arange(11) - 5.0
    line = torch.exp(-offsets.pow(2) / (2 * 1.5**2))
    window = torch.outer(line, line)[None, None] / line.sum() ** 2
    similar = [_ssim(x, y, window) for x, y in zip(frames, expected, strict=True)]
    return sum(similar) / len(similar)


def _ssim(x: Tensor, y: Tensor, window: Tensor) -> float:
    """Of one frame [H,W,3]."""
    x, y = (frame.permute(2, 0, 1)[:, None].float() / 255 for frame in (x, y))

    def mean(image: Tensor) -> Tensor:
        return F.conv2d(image, window)

    mean_x, mean_y = mean(x), mean(y)
    variance_x, variance_y = mean(x * x) - mean_x**2, mean(y * y) - mean_y**2
    covariance = mean(x * y) - mean_x * mean_y
    c1, c2 = 0.01**2, 0.03**2
    luminance = (2 * mean_x * mean_y + c1) / (mean_x**2 + mean_y**2 + c1)
    return (luminance * (2 * covariance + c2) / (variance_x + variance_y + c2)).mean().item()
