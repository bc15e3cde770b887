"""What a component of the model consists of, told by its config alone: modules are built on the meta device.

Nothing here reads a weight; the full-size transformer takes about a second and no memory.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from weights.errors import StructureError
from weights.key_map import SCALE_NAME

Shapes = dict[str, tuple[int, ...]]


def transformer_shapes(config: Mapping[str, Any], *, fp8: bool = False) -> Shapes:
    """Names and shapes of `HunyuanVideoTransformer3DModel(**config)`; with `fp8`, scales of its block Linears too."""
    from diffusers import HunyuanVideoTransformer3DModel

    shapes = _shapes_on_meta(HunyuanVideoTransformer3DModel, config)
    if fp8:
        scaled = [name for name, shape in shapes.items() if is_fp8_layer(name, shape)]
        shapes |= {f"{name.removesuffix('.weight')}.{SCALE_NAME}": (1,) for name in scaled}
    return shapes


def is_fp8_layer(name: str, shape: tuple[int, ...]) -> bool:
    """Whether this weight is stored in fp8: every Linear of the double and single blocks, under either naming."""
    blocks = ("transformer_blocks.", "single_transformer_blocks.", "double_blocks.", "single_blocks.")
    return name.startswith(blocks) and name.endswith(".weight") and len(shape) == 2


def vae_shapes(config: Mapping[str, Any]) -> Shapes:
    """Names and shapes of `AutoencoderKLHunyuanVideo(**config)`."""
    from diffusers import AutoencoderKLHunyuanVideo

    return _shapes_on_meta(AutoencoderKLHunyuanVideo, config)


def _shapes_on_meta(model_class: Any, config: Mapping[str, Any]) -> Shapes:
    import torch

    with torch.device("meta"):
        model = model_class(**config)
    return {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}


def compare(expected: Mapping[str, tuple[int, ...]], found: Mapping[str, tuple[int, ...]], *, where: Path) -> None:
    """Raise `StructureError` that names, in one line, what is missing, left over or of the wrong shape."""
    faults = differences(expected, found)
    if faults:
        raise StructureError(f"{where}: {'; '.join(faults)}")


def differences(expected: Mapping[str, tuple[int, ...]], found: Mapping[str, tuple[int, ...]]) -> list[str]:
    """At most three phrases: missing keys, left-over keys, wrong shapes; each names the first three and counts all."""
    missing = [name for name in expected if name not in found]
    left_over = [name for name in found if name not in expected]
    wrong = [
        f"{name} {list(found[name])} instead of {list(shape)}"
        for name, shape in expected.items()
        if name in found and tuple(found[name]) != tuple(shape) and not _is_scale_per_row(name, expected, found)
    ]
    kinds = (("missing", missing), ("left over", left_over), ("wrong shape", wrong))
    return [f"{kind}: {', '.join(names[:3])}{_count(names)}" for kind, names in kinds if names]


def _is_scale_per_row(name: str, expected: Mapping[str, tuple[int, ...]], found: Mapping[str, tuple[int, ...]]) -> bool:
    """A scale may be one number or one per row of its weight."""
    weight = expected.get(f"{name.removesuffix(SCALE_NAME)}weight")
    return name.endswith(f".{SCALE_NAME}") and weight is not None and tuple(found[name]) == (weight[0], 1)


def _count(names: list[str]) -> str:
    return f" ... ({len(names)} in all)" if len(names) > 3 else ""
