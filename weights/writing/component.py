"""One folder of the converted model, planned before anything is written."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from weights.errors import CheckpointError
from weights.writing.move import Move


@dataclass(frozen=True, kw_only=True)
class Component:
    """Files of `folder`: `texts` (name -> content), tensors to stream under `stem`, files to hard-link unchanged."""

    folder: str
    stem: str = ""
    texts: Mapping[str, str] = field(default_factory=dict)
    moves: tuple[Move, ...] = ()
    links: tuple[Path, ...] = ()

    @property
    def nbytes(self) -> int:
        """Bytes of tensors that will be written or linked."""
        return self.nbytes_written + sum(path.stat().st_size for path in self.links)

    @property
    def nbytes_written(self) -> int:
        """Bytes of tensors that will be written."""
        return sum(move.nbytes for move in self.moves)


def read_text(path: Path) -> str:
    """A text file. Raises `CheckpointError`."""
    try:
        return path.read_text()
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({error.strerror})") from error
    except UnicodeDecodeError as error:
        raise CheckpointError(f"{path}: not text ({error})") from error


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object. Raises `CheckpointError`."""
    try:
        value = json.loads(read_text(path))
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}: not JSON ({error})") from error
    if not isinstance(value, dict):
        raise CheckpointError(f"{path}: not a JSON object")
    return value


def json_text(value: Mapping[str, Any]) -> str:
    """As diffusers and transformers write their configs."""
    return json.dumps(value, indent=2, sort_keys=True) + "\n"
