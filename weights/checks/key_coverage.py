"""Counts of an original checkpoint's keys: how many are mapped, and what the model misses or does not know."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from weights.errors import CheckpointError
from weights.originals import plan_vae
from weights.originals.key_map import DitSizes, convert_scale_map, original_shapes, pieces_of, strip_vae_prefix
from weights.originals.plan_transformer import FULL_SIZE, list_dit
from weights.originals.structure import Shapes, is_fp8_layer, transformer_shapes, vae_shapes
from weights.writing.safetensors_file import list_safetensors


@dataclass(frozen=True, kw_only=True)
class KeyCoverage:
    """Counts of one component."""

    component: str
    original: int
    mapped: int
    produced: int
    missing: int
    left_over: int

    @classmethod
    def count(
        cls, component: str, *, original: int, mapped: int, produced: Collection[str], expected: Iterable[str]
    ) -> KeyCoverage:
        """Compare what was made with what the model expects. Raises `CheckpointError` for a key made twice."""
        made, wanted = set(produced), set(expected)
        if len(made) != len(produced):
            raise CheckpointError(f"{component}: a key was produced twice")
        return cls(
            component=component,
            original=original,
            mapped=mapped,
            produced=len(made),
            missing=len(wanted - made),
            left_over=len(made - wanted),
        )


def coverage_of_conversion(dit: Path, config: Mapping[str, Any], folder: Path) -> KeyCoverage:
    """Of a DiT checkpoint on disk and the `transformer/` folder made of it."""
    stored = list_dit(dit)
    shapes = {key: tensor.shape for key, tensor in stored.items()}
    return KeyCoverage.count(
        "transformer",
        original=len(stored),
        mapped=sum(bool(names) for names in _names(shapes, config)),
        produced=[key for path in sorted(folder.glob("*.safetensors")) for key in list_safetensors(path)],
        expected=transformer_shapes(config),
    )


def full_size_coverage() -> list[KeyCoverage]:
    """Of the full-size model by name and shape alone: both variants of the transformer, and the VAE."""
    converted = transformer_shapes(FULL_SIZE)
    original = original_shapes(converted, FULL_SIZE)
    names = _names(original, FULL_SIZE)
    produced = [name for group in names for name in group]
    modules = [key.removesuffix(".weight") for key, shape in original.items() if is_fp8_layer(key, shape)]
    scales = _scale_names(modules)
    vae = vae_shapes(plan_vae.FULL_SIZE)
    stripped = strip_vae_prefix({f"vae.{name}": shape for name, shape in vae.items()})
    mapped = sum(map(bool, names))
    return [
        KeyCoverage.count(
            "transformer, bf16", original=len(original), mapped=mapped, produced=produced, expected=converted
        ),
        KeyCoverage.count(
            "transformer, fp8",
            original=len(original) + len(modules),
            mapped=mapped + len(modules),
            produced=[*produced, *scales],
            expected=transformer_shapes(FULL_SIZE, fp8=True),
        ),
        KeyCoverage.count("vae", original=len(vae), mapped=len(stripped), produced=list(stripped), expected=vae),
    ]


def table(rows: Iterable[KeyCoverage]) -> list[str]:
    """The counts as lines of text."""
    lines = [f"{'':<18}{'original':>10}{'mapped':>8}{'produced':>10}{'missing':>9}{'left over':>11}"]
    for row in rows:
        counts = f"{row.original:>10}{row.mapped:>8}{row.produced:>10}{row.missing:>9}{row.left_over:>11}"
        lines.append(f"{row.component:<18}{counts}")
    return lines


def _names(shapes: Shapes, config: Mapping[str, Any]) -> list[list[str]]:
    """What each original tensor becomes."""
    sizes = DitSizes.from_config(config)
    return [[piece.name for piece in pieces_of(key, shape[0], sizes)] for key, shape in shapes.items()]


def _scale_names(modules: list[str]) -> list[str]:
    one = torch.ones(1)
    return list(convert_scale_map(dict.fromkeys(modules, one), modules, sizes=DitSizes.from_config(FULL_SIZE)))
