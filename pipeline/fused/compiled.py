"""The passes compiled by `torch.compile`, each into one kernel that takes any number of tokens.

They round where the eager ones round (`emulate_precision_casts`), so that results differ where fp32 sums were added up
in another order: seldom, and then by one rounding. That is not assumed: each pass is compared with the eager one when
it is compiled and again on the first tensors of a real request. A pass that differs, and all of them where nothing can
be compiled (no C compiler, no Triton), run eagerly, with one warning: that costs time, never a job.
"""

import logging
from collections.abc import Callable
from dataclasses import fields
from typing import Any, Final

import torch
from torch import Tensor

from pipeline.components import TransformerConfig
from pipeline.fused.agreement import check_agreement
from pipeline.fused.fallback import compiled_or_eager, one_line, plain
from pipeline.fused.passes import EAGER_PASSES, Passes
from pipeline.options import Fused

logger = logging.getLogger(__name__)

_WARM_UP_ROWS: Final = 16384  # so many that no reduction is split into parts to fill a GPU


def is_compiled(name: Fused, device: torch.device) -> bool:
    return name == "compiled" or (name == "auto" and device.type == "cuda")


def compiled_passes(config: TransformerConfig, dtype: torch.dtype, device: torch.device) -> Passes:
    """Compiled and compared here, for a transformer of that config whose activations have that dtype and device."""

    def warmed_up() -> Passes:
        passes = {field.name: CompiledPass(getattr(EAGER_PASSES, field.name)) for field in fields(Passes)}
        for name, tensors in _inputs(config, dtype, device).items():
            passes[name].warm_up(*tensors)
        return Passes(**passes)

    return compiled_or_eager("the blocks' passes", eager=EAGER_PASSES, compiled=warmed_up)


class CompiledPass:
    """One pass. Compiled once: what it was not compiled for, like any other failure, makes it eager from then on."""

    def __init__(self, eager: Callable[..., Any]) -> None:
        self._eager = eager
        self._compiled: Callable[..., Any] = torch.compile(
            eager,
            fullgraph=True,
            recompile_limit=1,
            isolate_recompiles=True,
            options={"emulate_precision_casts": True},
        )
        self._works = True
        self._compared = False

    def warm_up(self, *tensors: Tensor) -> None:
        """Compile for tensors like these, of any length. Raises whatever is wrong."""
        self._run(tensors)
        self._compared = False

    def __call__(self, *tensors: Tensor) -> Any:
        if not self._works or len(tensors[0]) == 1:  # a compiled length of 1 would be a constant
            return self._eager(*tensors)
        try:
            return self._run(tensors)
        except (torch.OutOfMemoryError, torch.AcceleratorError):
            raise
        except Exception as error:
            logger.warning("pass `%s` runs in eager torch from now on: %s", self._eager.__name__, one_line(error))
            self._works = False
            return self._eager(*tensors)

    @torch.no_grad()
    def _run(self, tensors: tuple[Tensor, ...]) -> Any:
        detached = [plain(tensor) for tensor in tensors]
        if not self._compared:
            for tensor in detached:
                if tensor.ndim > 1:
                    torch._dynamo.mark_dynamic(tensor, 0)
        result = self._compiled(*detached)
        if not self._compared:
            check_agreement(self._eager, tensors, result)
            self._compared = True
        return result


def _inputs(config: TransformerConfig, dtype: torch.dtype, device: torch.device) -> dict[str, list[Tensor]]:
    """Random arguments of each pass."""
    heads, width = config.num_attention_heads, config.attention_head_dim
    channels, rows = heads * width, _WARM_UP_ROWS
    generator = torch.Generator(device).manual_seed(0)

    def drawn(*shape: int, dtype: torch.dtype = dtype) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=dtype, device=device)

    angles = drawn(rows, width, dtype=torch.float32)
    return {
        "modulate": [drawn(rows, channels), drawn(channels), drawn(channels)],
        "rotate": [drawn(rows, heads, width), drawn(width), angles.cos(), angles.sin(), drawn(rows, heads, width)],
        "gate": [drawn(rows, channels), drawn(channels), drawn(rows, channels)],
        "gelu_join": [drawn(rows, channels), drawn(rows, int(config.mlp_ratio * channels))],
    }
