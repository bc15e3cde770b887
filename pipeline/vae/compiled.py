"""The passes of `vae/passes.py` compiled by `torch.compile`, each into one kernel for clips of any size."""

from collections.abc import Callable
from dataclasses import fields
from functools import cache
from typing import Any, Final

import torch
from torch import Tensor

from pipeline.fused.agreement import PassesDiffer
from pipeline.fused.fallback import compiled_or_eager, plain
from pipeline.vae.passes import EAGER_PASSES, Passes

_CHANNELS: Final = 128
_SIDES: Final = (6, 40, 96)
"""T, H, W of the tensors to compile with. No two sides are equal, not with edges either: the compiler would take equal
sides for one and the same. They are large enough for it to choose the blocks of a large tensor."""

_FP32_ULPS: Final = 64
"""By how many units in the last place fp32 results may differ: sums are made in another order, products and sums at
once. 16-bit results are such values rounded, and differ by one."""


@cache
def compiled_passes(
    device: torch.device, dtype: torch.dtype, memory_format: torch.memory_format, backend: Any = "inductor"
) -> Passes:
    """Compiled for tensors of this kind and compared with the eager ones, which are the result where that fails."""

    def compared() -> Passes:
        passes = Passes(**{field.name: _compiled(field.name, backend) for field in fields(Passes)})
        with torch.no_grad():
            _compare(passes, device, dtype, memory_format)
        return passes

    return compiled_or_eager(f"the VAE's passes for {dtype}", eager=EAGER_PASSES, compiled=compared)


def _compiled(name: str, backend: Any) -> Callable[..., Any]:
    eager = getattr(EAGER_PASSES, name)
    run = torch.compile(eager, dynamic=True, fullgraph=True, isolate_recompiles=True, backend=backend)
    return lambda *arguments: run(*map(plain, arguments))


def _compare(passes: Passes, device: torch.device, dtype: torch.dtype, memory_format: torch.memory_format) -> None:
    """Calls each pass, which compiles it. Raises PassesDiffer, and what the compiler raises."""
    x, scale, shift = (
        torch.randn(1, _CHANNELS, *sides, generator=torch.Generator(device).manual_seed(seed), device=device)
        for seed, sides in enumerate([_SIDES, (1, 1, 1), (1, 1, 1)])
    )
    x = x.to(dtype, memory_format=memory_format)
    t, h, w = (torch.arange(-1, side + 1, device=device).clamp(0, side - 1) for side in _SIDES)

    def results(passes: Passes) -> tuple[Tensor, ...]:
        size = (*x.shape[:2], len(t), len(h), len(w))
        gathered, activated = (
            torch.empty(size, dtype=dtype, device=device, memory_format=memory_format) for _ in range(2)
        )
        passes.gather(gathered, x, (t, h, w))
        passes.gather_activated(activated, x, (t, h, w), scale, shift)
        return gathered, activated, *passes.row_moments(x)

    for compiled, eager in zip(results(passes), results(EAGER_PASSES), strict=True):
        tolerance = torch.finfo(eager.dtype).eps * (_FP32_ULPS if eager.dtype == torch.float32 else 1)
        if not torch.allclose(compiled.float(), eager.float(), rtol=tolerance, atol=tolerance):
            raise PassesDiffer(f"by {(compiled.float() - eager.float()).abs().max().item():.2g} at most")
