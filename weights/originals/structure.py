"""What a component of the model consists of, told by its config alone: modules are built on the meta device.

Nothing here reads a weight; the full-size transformer takes about a second and no memory.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from weights.errors import StructureError
from weights.originals.key_map import SCALE_NAME

Shapes = dict[str, tuple[int, ...]]
Faults = dict[str, list[str]]
"""By kind ("missing", "left over", "wrong shape"), every key at fault."""

CONFIG_ERRORS = (TypeError, ValueError, LookupError, AttributeError, ArithmeticError, RuntimeError, AssertionError)
"""What building a model by a config that makes no sense raises."""

_CONFIG = Path("config.json")


def transformer_shapes(config: Mapping[str, Any], *, fp8: bool = False, where: Path = _CONFIG) -> Shapes:
    """Names and shapes of `HunyuanVideoTransformer3DModel(**config)`; with `fp8`, scales of its block Linears too.

    Raises `StructureError` naming `where` for a config no model can be built by.
    """
    from diffusers import HunyuanVideoTransformer3DModel

    shapes = _shapes_on_meta(HunyuanVideoTransformer3DModel, config, where)
    if fp8:
        scaled = [name for name, shape in shapes.items() if is_fp8_layer(name, shape)]
        shapes |= {f"{name.removesuffix('.weight')}.{SCALE_NAME}": (1,) for name in scaled}
    return shapes


def is_fp8_layer(name: str, shape: tuple[int, ...]) -> bool:
    """Whether this weight is stored in fp8: every Linear of the double and single blocks, under either naming."""
    blocks = ("transformer_blocks.", "single_transformer_blocks.", "double_blocks.", "single_blocks.")
    return name.startswith(blocks) and name.endswith(".weight") and len(shape) == 2


def vae_shapes(config: Mapping[str, Any], *, where: Path = _CONFIG) -> Shapes:
    """Names and shapes of `AutoencoderKLHunyuanVideo(**config)`; raises as `transformer_shapes`."""
    from diffusers import AutoencoderKLHunyuanVideo

    return _shapes_on_meta(AutoencoderKLHunyuanVideo, config, where)


def _shapes_on_meta(model_class: Any, config: Mapping[str, Any], where: Path) -> Shapes:
    try:
        with torch.device("meta"):
            model = model_class(**config)
    except CONFIG_ERRORS as error:
        raise StructureError(f"{where}: {model_class.__name__} refuses it ({reason_of(error)})") from error
    return {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}


def reason_of(error: Exception) -> str:
    """A library's error in one short line."""
    return " ".join((str(error) or type(error).__name__).split())[:200]


def wrong_dtypes(found: Mapping[str, torch.dtype], *, fp8: bool) -> list[str]:
    """Tensors of a dtype the variant does not have: fp8 block Linears, fp32 scales, otherwise 16 bit or wider."""
    faults = []
    for name, dtype in found.items():
        if name.endswith(f".{SCALE_NAME}"):
            wanted, right = "float32", dtype == torch.float32
        elif fp8 and f"{name.removesuffix('.weight')}.{SCALE_NAME}" in found:
            wanted, right = "float8_e4m3fn", dtype == torch.float8_e4m3fn
        else:
            wanted, right = "floating point of 16 bit or more", dtype.is_floating_point and dtype.itemsize > 1
        if not right:
            faults.append(f"{name} {str(dtype).removeprefix('torch.')} instead of {wanted}")
    return faults


def check_dtypes(found: Mapping[str, torch.dtype], *, where: Path) -> None:
    """Raise `StructureError` unless all of a component without fp8 layers is floating point."""
    if faults := wrong_dtypes(found, fp8=False):
        raise StructureError(f"{where}: {summary({'wrong dtype': faults})}")


def compare(expected: Mapping[str, tuple[int, ...]], found: Mapping[str, tuple[int, ...]], *, where: Path) -> None:
    """Raise `StructureError` that names, in one line, what is missing, left over or of the wrong shape."""
    faults = differences(expected, found)
    if faults:
        raise StructureError(f"{where}: {summary(faults)}")


def differences(expected: Mapping[str, tuple[int, ...]], found: Mapping[str, tuple[int, ...]]) -> Faults:
    """Every key that is missing, left over or of the wrong shape."""
    wrong = [
        f"{name} {list(found[name])} instead of {list(shape)}"
        for name, shape in expected.items()
        if name in found and tuple(found[name]) != tuple(shape) and not _is_scale_per_row(name, expected, found)
    ]
    faults = {
        "missing": [name for name in expected if name not in found],
        "left over": [name for name in found if name not in expected],
        "wrong shape": wrong,
    }
    return {kind: names for kind, names in faults.items() if names}


def summary(faults: Mapping[str, list[str]]) -> str:
    """One line: the first three of every kind, and how many there are."""
    return "; ".join(f"{kind}: {', '.join(names[:3])}{_count(names)}" for kind, names in faults.items())


def _is_scale_per_row(name: str, expected: Mapping[str, tuple[int, ...]], found: Mapping[str, tuple[int, ...]]) -> bool:
    """A scale may be one number or one per row of its weight."""
    weight = expected.get(f"{name.removesuffix(SCALE_NAME)}weight")
    return name.endswith(f".{SCALE_NAME}") and weight is not None and tuple(found[name]) == (weight[0], 1)


def _count(names: list[str]) -> str:
    return f" ... ({len(names)} in all)" if len(names) > 3 else ""
