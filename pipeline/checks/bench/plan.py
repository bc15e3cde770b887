"""What `bench model` shall measure, from the words of its options."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias, get_args

import torch

from pipeline.checks.bench.subject import Sizes
from pipeline.options import Dtype
from pipeline.shapes import PixelShape

Stage: TypeAlias = Literal["ceilings", "step", "shares", "options", "decode", "encode", "reuse"]
STAGES: tuple[Stage, ...] = get_args(Stage)

_NAMED_SIZES = {"512p": (512, 896), "720p": (720, 1280)}


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchPlan:
    """sizes: `step` takes all of them, the other stages the first, `reuse` 17 frames of it at most. text_rows: valid
    rows of the two branches; the defaults are those of fal's negative prompt and of a prompt of 50 tokens. steps: of
    the stage `reuse`. folder: a converted model; without one, random weights of the sizes `models`.
    """

    device: torch.device
    dtype: Dtype
    models: Sizes
    sizes: Sequence[PixelShape]
    text_rows: tuple[int, int] = (50, 625)
    stages: Sequence[Stage] = STAGES
    folder: Path | None = None
    repeats: int = 3
    steps: int = 30
    limit_s: float = 600.0


def bench_plan(
    *,
    device: str | None,
    small: bool | None,
    sizes: str | None,
    frames: str | None,
    text_rows: str,
    stages: str | None,
    folder: Path | None,
    repeats: int | None,
    steps: int,
    limit_s: float,
) -> BenchPlan:
    """None leaves it to the machine: a GPU and the full size, or a CPU and what one core of it can do.

    Raises ValueError naming the option.
    """
    chosen = _device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    on_gpu = chosen.type == "cuda"
    return BenchPlan(
        device=chosen,
        dtype="bfloat16" if on_gpu else "float32",
        models=Sizes.named(small=not on_gpu if small is None else small),
        sizes=_sizes(sizes or ("512p" if on_gpu else "128x224"), frames or ("81,129" if on_gpu else "33")),
        text_rows=_text_rows(text_rows),
        stages=_stages(stages),
        folder=folder,
        repeats=repeats or (1 if on_gpu else 3),
        steps=steps,
        limit_s=limit_s,
    )


def _device(name: str) -> torch.device:
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:  # torch without CUDA asserts
        raise ValueError(f"--device {name}: {str(error).splitlines()[0]}") from error
    return device


def _sizes(sizes: str, frames: str) -> list[PixelShape]:
    """Every size with every number of frames, small ones first."""
    shapes = []
    for name in sizes.split(","):
        height, width = _NAMED_SIZES.get(name) or _numbers("size", name.replace("x", ","), 2)
        shapes += [PixelShape(frames=count, height=height, width=width) for count in _numbers("frames", frames)]
    return sorted(shapes, key=lambda shape: shape.height * shape.width * shape.frames)


def _text_rows(words: str) -> tuple[int, int]:
    negative, positive = _numbers("text-rows", words, 2)
    return negative, positive


def _stages(words: str | None) -> Sequence[Stage]:
    """In their own order."""
    named = STAGES if words is None else tuple(words.split(","))
    if unknown := set(named) - set(STAGES):
        raise ValueError(f"--stages must be of {', '.join(STAGES)}; got {', '.join(sorted(unknown))}")
    return [stage for stage in STAGES if stage in named]


def _numbers(option: str, words: str, count: int | None = None) -> list[int]:
    try:
        numbers = [int(word) for word in words.split(",")]
    except ValueError:
        numbers = []
    if not numbers or min(numbers) < 1 or count not in {None, len(numbers)}:
        raise ValueError(f"--{option} does not read: {words!r}")
    return numbers
