"""Linear layers stored in float8_e4m3fn with a scale, as Tencent publishes them: smaller, not faster.

Each layer computes with `weight * scale`, both cast to the activations' dtype (bf16) and the product rounded to it.
Activations are not quantised.
"""

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from weights.originals.key_map import SCALE_NAME


class Fp8Linear(nn.Module):
    """`weight` float8_e4m3fn [out, in]; `weight_scale` [1] or [out, 1]; `bias` [out] or None."""

    def __init__(self, weight: Tensor, weight_scale: Tensor, bias: Tensor | None) -> None:
        super().__init__()
        self.weight = _frozen(weight)
        self.weight_scale = _frozen(weight_scale)
        self.bias = None if bias is None else _frozen(bias)

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight.to(x.dtype) * self.weight_scale.to(x.dtype), self.bias)


def load_fp8_state_dict(transformer: nn.Module, state_dict: Mapping[str, Tensor]) -> None:
    """Strictly loads a state dict in which some Linear layers have a `weight_scale`; those become `Fp8Linear`.

    Their weights are cast to float8_e4m3fn whatever they were stored as: checkpoints may hold them wider, already
    divided by the scale. The tensors are assigned, not copied, so `transformer` may be on the meta device.
    """
    state = dict(state_dict)
    suffix = f".{SCALE_NAME}"
    for key in [key for key in state if key.endswith(suffix)]:
        name = key.removesuffix(suffix)
        state[f"{name}.weight"] = state[f"{name}.weight"].to(torch.float8_e4m3fn)
        linear = transformer.get_submodule(name)
        transformer.set_submodule(name, Fp8Linear(state[f"{name}.weight"], state[key], linear.bias))
    transformer.load_state_dict(state, strict=True, assign=True)


def _frozen(tensor: Tensor) -> nn.Parameter:
    return nn.Parameter(tensor, requires_grad=False)
