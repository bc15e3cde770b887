"""The attention backends by name: which package has them, how they are called, and how exact they have to be."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Final

import torch
from torch import Tensor

from pipeline.attention.function import AttentionFunction, sdpa

_FP8: Final = torch.float8_e4m3fn


@dataclass(frozen=True, kw_only=True)
class Backend:
    """`module` has it, `package` is that module's distribution. `function` makes the attention function of the module.
    `install`: what to give pip.

    `bound`: the largest error of a row, as a share of its length, on random tensors (`probe.py`). bf16 rounding alone
    makes 0.004; a kernel that leaves out one key of 400 makes 0.7. `changes_picture`: computes in 8 bits, so that
    frames differ visibly from those of the others.
    """

    module: str
    package: str
    install: str
    function: Callable[[Any], AttentionFunction]
    bound: float = 0.01
    changes_picture: bool = False


def _flash(module: Any) -> AttentionFunction:
    return lambda q, k, v: _output(module.flash_attn_func(q, k, v))


def _flash_3_fp8(module: Any) -> AttentionFunction:
    def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        (q8, q_scale), (k8, k_scale), (v8, v_scale) = map(_quantised, (q, k, v))
        out = _output(module.flash_attn_func(q8, k8, v8, q_descale=q_scale, k_descale=k_scale, v_descale=v_scale))
        return out.to(q.dtype)

    return attend


def _sage(module: Any) -> AttentionFunction:
    return lambda q, k, v: module.sageattn(q, k, v, tensor_layout="NHD")


_FA3: Final[Mapping[str, Any]] = {
    "module": "fa3_fwd_interface",
    "package": "fa3-fwd",
    "install": "hunyuan-custom-server[fa3]",
}

BACKENDS: Final[Mapping[str, Backend]] = {
    "sdpa": Backend(module="torch", package="torch", install="torch", function=lambda _module: sdpa),
    "fa3": Backend(**_FA3, function=_flash),
    # Not by torch's `activate_flash_attention_impl`, which fails with versions that return one value.
    "fa4": Backend(module="flash_attn.cute", package="flash-attn-4", install="flash-attn-4", function=_flash),
    "fa3_fp8": Backend(**_FA3, function=_flash_3_fp8, bound=0.3, changes_picture=True),
    "sage": Backend(
        module="sageattention",
        package="sageattention",
        install="sageattention",
        function=_sage,
        bound=0.1,
        changes_picture=True,
    ),
}


class UnusableAttentionError(ValueError):
    """A backend that is not installed, cannot be loaded, or computes something else."""


class NotInstalledError(UnusableAttentionError):
    """Its module is not there."""


def load(backend: Backend) -> AttentionFunction:
    """Imports the module. Raises UnusableAttentionError with the reason, as the end of a sentence."""
    try:
        return backend.function(import_module(backend.module))
    except ModuleNotFoundError as error:
        if error.name and f"{backend.module}.".startswith(f"{error.name}."):
            raise NotInstalledError(f"is not installed (pip install '{backend.install}')") from error
        raise UnusableAttentionError(f"cannot be loaded: {error}") from error
    except Exception as error:  # a library that is missing or of another version is more than an ImportError
        raise UnusableAttentionError(f"cannot be loaded: {type(error).__name__}: {error}") from error


def _output(result: Any) -> Tensor:
    """Some versions return the log-sum-exp of the scores as well."""
    return result[0] if isinstance(result, tuple) else result


def _quantised(x: Tensor) -> tuple[Tensor, Tensor]:
    """[1,N,H,D] -> float8 of the same shape, and the scales [1,H] to multiply by, fp32."""
    scale = x.abs().amax(dim=(1, 3)).clamp(min=1e-12) / torch.finfo(_FP8).max
    return (x / scale[:, None, :, None]).to(_FP8), scale.float()
