"""The VAE: one tile, and the clip as the server decodes it, frame by frame of its tiles."""

import time
from collections.abc import Iterator
from dataclasses import asdict

import torch
from torch import Tensor

from pipeline.checks.bench.stopwatch import Case, Stopwatch
from pipeline.checks.bench.subject import Subject
from pipeline.checks.bench.table import Row
from pipeline.checks.vae_tile import tile_cases
from pipeline.shapes import PixelShape
from pipeline.vae.codec import decode_stream, decode_tile_count, decode_tiling

STAGE = "decode"


def decode(subject: Subject, size: PixelShape, stopwatch: Stopwatch) -> Iterator[Row]:
    latents, tiling = subject.latents(size), decode_tiling(subject.vae)
    frames, height, width = (
        min(side, tile)
        for side, tile in zip(latents.shape[2:], (tiling.time.tile, tiling.space.tile, tiling.space.tile), strict=True)
    )
    tile = latents[:, :, :frames, :height, :width].contiguous()
    kinds = tile_cases(subject.vae, tile.to(subject.vae.dtype))
    cases = [Case("", lambda: decoded(subject, tile)), *(Case(f", {name}", run) for name, run in kinds.items())]
    with torch.no_grad():
        timed_by_name = stopwatch.minima(cases)
    size_of_tile = f"{frames} x {height} x {width} latents"
    for name, timed in timed_by_name.items():
        yield Row(stage=STAGE, what=f"one tile{name}", size=size_of_tile, **asdict(timed))
    firsts: list[float] = []
    (timed,) = stopwatch.minima([Case("", lambda: firsts.append(_until_first(subject, latents)))]).values()
    yield Row(
        stage=STAGE,
        what="the whole clip",
        size=f"{size.height}x{size.width}, {size.frames} frames",
        note=f"{decode_tile_count(subject.vae, latents)} tiles, first frames after {min(firsts, default=0):.3g} s",
        **asdict(timed),
    )


@torch.no_grad()
def decoded(subject: Subject, latents: Tensor) -> Tensor:
    """uint8 [F,H,W,3]."""
    return torch.cat([torch.from_numpy(frames) for frames in decode_stream(subject.vae, latents)])


def _until_first(subject: Subject, latents: Tensor) -> float:
    """Decode all; seconds until the first frames are there."""
    started, first = time.perf_counter(), None
    for _ in decode_stream(subject.vae, latents):
        first = first or time.perf_counter() - started
    return first or 0.0
