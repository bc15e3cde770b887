"""Layers whose weights stay in host memory, because they are used once in a request: those of the modulation."""

import re
from collections.abc import Callable
from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.func import functional_call

_MODULATION: Final = re.compile(
    r"(transformer_blocks\.\d+\.norm1(_context)?|single_transformer_blocks\.\d+\.norm|norm_out)\.linear"
)


def is_modulation(weight: str) -> bool:
    """Whether a weight of the transformer, by its name, belongs to a layer that makes shifts, scales and gates."""
    return _MODULATION.fullmatch(weight.rpartition(".")[0]) is not None


def keep_modulation_on_host(transformer: nn.Module, dtype: torch.dtype | None = None) -> None:
    """From now on those layers stay on the CPU (where they must be), wherever `transformer` is moved.

    With a `dtype` they become it, except for fp8 weights.
    """
    for name, layer in list(transformer.named_modules()):
        if _MODULATION.fullmatch(name):
            for parameter in layer.parameters():
                if dtype is not None and parameter.itemsize > 1:
                    parameter.data = parameter.data.to(dtype)
            transformer.set_submodule(name, HostLayer(layer))


def moved_tensors(module: nn.Module) -> list[Tensor]:
    """Parameters and buffers of `module` that go with it to a device, each once: all but those of its host layers."""
    within = [each for each in module.modules() if not isinstance(each, HostLayer)]
    return list(dict.fromkeys(own for each in within for own in (*each.parameters(False), *each.buffers(False))))


class HostLayer(nn.Module):
    """A layer under the names of its own weights. `to` and offloading of whole models leave them where they are."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self._layer = (layer,)  # not a submodule: its weights would get another name
        for name, parameter in layer.named_parameters():
            self.register_parameter(name, parameter)

    def copied_to(self, device: torch.device) -> Callable[[Tensor], Tensor]:
        """The layer as a function that holds a copy of the weights on `device` for as long as it exists."""
        weights = {name: parameter.to(device) for name, parameter in self.named_parameters()}
        return lambda x: functional_call(self._layer[0], weights, (x,))

    def forward(self, x: Tensor) -> Tensor:
        return self.copied_to(x.device)(x)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Any:  # noqa: ARG002 - torch's signature
        return self
