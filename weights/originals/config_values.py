"""Do a config's numbers make sense? Asked before a model is built by them, which could fail anywhere or never end."""

from __future__ import annotations

import reprlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from weights.errors import StructureError

LARGEST = 4
"""Times the full size; numbers beyond it are mistakes, and 100,000 layers would take hours to list."""


def check_values(
    path: Path, given: Mapping[str, Any], full_size: Mapping[str, Any], *, null: bool = False, within: str = ""
) -> None:
    """Raise `StructureError` for a value of another kind than the full size has, not positive, or far too large.

    Keys that `given` lacks, or `full_size` does not name, are not looked at; nor, with `null`, are nulls that stand for
    a default. A mapping inside is checked likewise.
    """
    for key, like in full_size.items():
        value = given.get(key)
        if key not in given or (null and value is None):
            continue
        if isinstance(like, Mapping) and isinstance(value, Mapping):
            check_values(path, value, like, null=null, within=f"{within}{key}.")
        elif not _is_like(value, like):
            raise StructureError(
                f"{path}: {within}{key}: {reprlib.repr(value)}, something like {reprlib.repr(like)} is needed"
            )


def _is_like(value: object, example: object) -> bool:
    if isinstance(example, list):
        return isinstance(value, list) and len(value) == len(example) and all(map(_is_like, value, example))
    if isinstance(example, bool):
        return isinstance(value, bool)
    if isinstance(example, int | float):
        kind = int | float if isinstance(example, float) else int
        return isinstance(value, kind) and not isinstance(value, bool) and 0 < value <= LARGEST * example
    return example is None or isinstance(value, type(example))
