"""What the pipeline's options cost or bring: the same step with each of them, in turn.

A new option is one `Variant` here.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from typing import TypeAlias

import torch

from pipeline.attention.backends import BACKENDS
from pipeline.attention.choice import choose_attention
from pipeline.checks.bench.stopwatch import Case, Stopwatch
from pipeline.checks.bench.subject import Request, Subject
from pipeline.checks.bench.table import Row
from pipeline.cpu_linear import use_onednn, use_torch
from pipeline.fused.passes import EAGER_PASSES
from pipeline.memory.device_copies import copies_to
from pipeline.memory.streaming import stream_blocks

STAGE = "options"
DEFAULT = "defaults"

Setting: TypeAlias = Callable[[Request, Subject], AbstractContextManager[object]]
"""Within it the request is computed with the option."""


@dataclass(frozen=True, slots=True)
class Variant:
    """`warm`: steps after each switch that are not timed. `device`: its type; on another it changes nothing."""

    name: str
    setting: Setting
    warm: int = 0
    device: str | None = None


def _attention(name: str, request: Request, subject: Subject) -> AbstractContextManager[None]:
    function = choose_attention(name, subject.heads).function  # type: ignore[arg-type]
    return request.computing_with(replace(request.kernels, attention=function))


def _eager(request: Request, _subject: Subject) -> AbstractContextManager[None]:
    return request.computing_with(replace(request.kernels, passes=EAGER_PASSES))


def _in_chunks(request: Request, _subject: Subject) -> AbstractContextManager[None]:
    return request.computing_with(replace(request.kernels, mlp_chunk=max(1, request.tokens // 8)))


@contextmanager
def _onednn(request: Request, subject: Subject) -> Iterator[None]:
    use_onednn(request.transformer, device=subject.device, dtype=subject.dtypes.transformer)
    try:
        yield
    finally:
        use_torch(request.transformer)


@contextmanager
def _streamed_blocks(request: Request, subject: Subject) -> Iterator[None]:
    transformer = request.transformer
    transformer.to("cpu")
    ring = stream_blocks(transformer, copies_to(subject.device))
    try:
        yield
    finally:
        for module in transformer.modules():
            if hasattr(module, "_hf_hook"):
                del module._hf_hook
        ring.clear()
        ring.close()
        transformer.to(subject.device)


VARIANTS = (
    Variant(DEFAULT, lambda _request, _subject: nullcontext()),
    Variant("fused = eager", _eager, device="cuda"),
    Variant("mlp_chunk = 1/8 of the tokens", _in_chunks),
    Variant("memory_plan = stream_blocks", _streamed_blocks, warm=1, device="cuda"),
    Variant("cpu_linear = onednn", _onednn, device="cpu"),
    *(Variant(f"attention = {name}", partial(_attention, name)) for name in BACKENDS),
)


def options(request: Request, subject: Subject, stopwatch: Stopwatch) -> Iterator[Row]:
    """One that is not installed, say, is a row with the reason."""
    expected = torch.cat(request.step())
    chosen = [variant for variant in VARIANTS if variant.device in {None, subject.device.type}]
    cases = [Case(it.name, request.step, partial(it.setting, request, subject), it.warm) for it in chosen]
    timed = stopwatch.minima(cases)
    base = timed[DEFAULT].seconds
    for case in cases:
        name, result, note = case.name, timed[case.name], ""
        if not result.error:
            with case.setting():
                difference = (torch.cat(request.step()) - expected).abs().max() / expected.abs().max()
            note = "bit-equal" if difference == 0 else f"velocities differ by {difference:.1e} of the largest"
        yield Row(
            stage=STAGE,
            what=name,
            size=request.name,
            tokens=request.tokens,
            seconds=result.seconds,
            ratio=result.seconds / base if result.seconds and base else None,
            of=DEFAULT,
            peak_bytes=result.peak_bytes,
            note=note,
            error=result.error,
        )
