"""The Linear layers of the transformer computed by oneDNN instead of torch's own choice for fp32, which is MKL.

On one core of an AMD EPYC, MKL's fp32 products run at 103 to 112 GFLOP/s and oneDNN's at 230 to 243; Intel's CPUs were
not tried. oneDNN takes the weights as they are, without a copy. It adds up in another order, so that results differ in
their last bits; for the same shapes they are the same again.
"""

import logging
from typing import Final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipeline.fused.fallback import one_line
from pipeline.options import CpuLinear

logger = logging.getLogger(__name__)

_AGREEMENT: Final = 2e-6  # of the largest value: what fp32 results of the transformer may differ by


class UnusableOneDnnError(Exception):
    """oneDNN does not compute Linear layers here. The message is the reason."""


class OneDnnLinear(nn.Linear):
    """For fp32 on a CPU, without gradients."""

    def forward(self, x: Tensor) -> Tensor:
        """[...,in] -> [...,out], whatever the strides."""
        return _onednn(x, self.weight, self.bias)


def choose_cpu_linear(transformer: nn.Module, name: CpuLinear, *, device: torch.device, dtype: torch.dtype) -> None:
    """What computes the layers from now on; torch, after one line in the log, where oneDNN does not."""
    if name == "torch":
        return
    try:
        count = use_onednn(transformer, device=device, dtype=dtype)
    except UnusableOneDnnError as error:
        logger.info("cpu_linear = %r is ignored: %s", name, error)
    else:
        logger.info("cpu_linear: oneDNN computes %d layers", count)


def use_onednn(transformer: nn.Module, *, device: torch.device, dtype: torch.dtype) -> int:
    """Each layer keeps its weights, name and hooks; fp8 layers are left alone. Returns how many were changed.

    Raises UnusableOneDnnError for another device or dtype than the CPU's fp32, and where oneDNN is missing or wrong.
    """
    if device.type != "cpu" or dtype != torch.float32:
        raise UnusableOneDnnError(f"it is for float32 on a CPU, not for {dtype} on {device.type}")
    _check()
    layers = [layer for layer in transformer.modules() if type(layer) is nn.Linear]
    for layer in layers:
        layer.__class__ = OneDnnLinear
    return len(layers)


def use_torch(transformer: nn.Module) -> None:
    """Undoes `use_onednn`."""
    for layer in transformer.modules():
        if isinstance(layer, OneDnnLinear):
            layer.__class__ = nn.Linear


def _onednn(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """What torch's own compiler calls for a Linear layer on a CPU; "none": no activation after it."""
    result: Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
    return result


def _check() -> None:
    """The operator is no public one: another torch may lack it, or take other arguments."""
    if not torch.backends.mkldnn.is_available():
        raise UnusableOneDnnError("this torch was built without oneDNN")
    drawn = torch.Generator().manual_seed(0)
    x, weight, bias = (torch.randn(shape, generator=drawn) for shape in ((16, 64), (96, 64), (96,)))
    try:
        with torch.no_grad():
            result, expected = _onednn(x, weight, bias), F.linear(x, weight, bias)
    except Exception as error:  # a missing operator is an AttributeError, what it cannot do a RuntimeError
        raise UnusableOneDnnError(one_line(error)) from error
    if not (result - expected).abs().max() <= _AGREEMENT * expected.abs().max():
        raise UnusableOneDnnError("it computes something else")
