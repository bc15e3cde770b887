"""Do the parts belong together? Widths that one model hands to the next, compared across their configs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from weights.errors import StructureError


@dataclass(frozen=True)
class Config:
    """A part's settings, defaults filled in, and the file they are from."""

    path: Path
    settings: Mapping[str, Any]

    def value(self, key: str) -> Any:
        """Of a key, dotted where it lies deeper."""
        found: Any = self.settings
        for name in key.split("."):
            found = found[name]
        return found


def check_configs(*, transformer: Config, vae: Config, llava: Config, clip: Config) -> None:
    """Raise `StructureError` that names both files and keys of the first two values that differ."""
    _same(transformer, "in_channels", vae, "latent_channels")
    _same(transformer, "out_channels", transformer, "in_channels")
    _same(transformer, "text_embed_dim", llava, "text_config.hidden_size")
    _same(transformer, "pooled_projection_dim", clip, "hidden_size")
    head, axes = transformer.value("attention_head_dim"), transformer.value("rope_axes_dim")
    if head != sum(axes) or any(axis % 2 for axis in axes):
        raise StructureError(
            f"{transformer.path}: attention_head_dim is {head}, rope_axes_dim {list(axes)} adds up to {sum(axes)}; "
            "even numbers of the same sum are needed"
        )


def _same(one: Config, key: str, other: Config, other_key: str) -> None:
    value, other_value = one.value(key), other.value(other_key)
    if value != other_value:
        raise StructureError(f"{one.path}: {key} is {value}, but {other.path}: {other_key} is {other_value}")
