"""`configs/weights.toml`: which files make up the model and which repository of the hub publishes them."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, fields
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from weights.errors import ManifestError
from weights.originals.layout import Variant

_FOLDERS = (Path(__file__).parents[2] / "configs", Path(__file__).parents[2] / "server" / "configs")
MANIFEST = next((folder / "weights.toml" for folder in _FOLDERS if folder.is_dir()), _FOLDERS[0] / "weights.toml")
"""In a checkout, or where the wheel puts it."""


@dataclass(frozen=True, kw_only=True)
class Repository:
    """A repository of the hub at a branch or commit."""

    name: str
    revision: str


@dataclass(frozen=True, kw_only=True)
class ManifestComponent:
    """Files of one folder. `files` must exist, `optional` may; of `weights` (patterns) the first that matches anything.

    In `repository` the files lie in `folder`, perhaps below `models/`; in `fallback` they lie at the top.
    """

    name: str
    variants: tuple[Variant, ...]
    folder: str
    repository: Repository
    fallback: Repository | None
    files: tuple[str, ...]
    optional: tuple[str, ...]
    weights: tuple[str, ...]
    gigabytes: float

    def names(self, path: Path) -> bool:
        """Whether a local file is one of these; another variant's may lie in the same folder."""
        patterns = (*self.files, *self.optional, *self.weights)
        return str(path.parent).endswith(self.folder) and any(fnmatch(path.name, pattern) for pattern in patterns)


@dataclass(frozen=True, kw_only=True)
class Companion:
    """A model that works beside HunyuanCustom and is used as it is published: `files` of the repository's top."""

    name: str
    folder: str
    repository: Repository
    files: tuple[str, ...]
    licence: str
    gigabytes: float


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """The whole file."""

    licence: str
    notice: str
    components: tuple[ManifestComponent, ...]
    companions: tuple[Companion, ...] = ()

    def of(self, variant: Variant) -> tuple[ManifestComponent, ...]:
        """Components that `variant` needs."""
        return tuple(component for component in self.components if variant in component.variants)


def read_manifest(path: Path = MANIFEST) -> Manifest:
    """Raises `ManifestError` naming the file and the entry."""
    try:
        content = tomllib.loads(path.read_text())
    except OSError as error:
        raise ManifestError(f"{path}: cannot be read ({error.strerror})") from error
    except tomllib.TOMLDecodeError as error:
        raise ManifestError(f"{path}: {error}") from error
    try:
        components = tuple(_component(name, entry, path) for name, entry in content["components"].items())
        companions = tuple(_companion(name, entry, path) for name, entry in content.get("companions", {}).items())
        licence = content["licence"]
        return Manifest(
            licence=licence["name"], notice=licence["notice"].strip(), components=components, companions=companions
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ManifestError(f"{path}: missing or wrong: {error}") from error


def _refuse_unknown(entry: dict[str, Any], kind: type[ManifestComponent | Companion], where: str) -> None:
    unknown = sorted(set(entry) - ({field.name for field in fields(kind)} - {"name"} | {"revision"}))
    if unknown:
        raise ManifestError(f"{where}.{unknown[0]}: unknown key")


def _companion(name: str, entry: dict[str, Any], path: Path) -> Companion:
    _refuse_unknown(entry, Companion, f"{path}: companions.{name}")
    return Companion(
        name=name,
        folder=entry["folder"],
        repository=Repository(name=entry["repository"], revision=entry["revision"]),
        files=tuple(entry["files"]),
        licence=entry["licence"],
        gigabytes=float(entry["gigabytes"]),
    )


def _component(name: str, entry: dict[str, Any], path: Path) -> ManifestComponent:
    _refuse_unknown(entry, ManifestComponent, f"{path}: components.{name}")
    fallback = entry.get("fallback")
    return ManifestComponent(
        name=name,
        variants=tuple(Variant(variant) for variant in entry["variants"]),
        folder=entry["folder"],
        repository=Repository(name=entry["repository"], revision=entry["revision"]),
        fallback=Repository(name=fallback["repository"], revision=fallback["revision"]) if fallback else None,
        files=tuple(entry["files"]),
        optional=tuple(entry.get("optional", ())),
        weights=tuple(entry.get("weights", ())),
        gigabytes=float(entry["gigabytes"]),
    )
