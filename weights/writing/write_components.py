"""All components of a model into one folder, and the record of it; the folder appears whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path

from weights.disk import disk_errors, require_space
from weights.reporter import Progress, ignore
from weights.writing.component import Component, json_text
from weights.writing.safetensors_file import list_safetensors
from weights.writing.shard_writer import write_shards
from weights.writing.staging import MARKER, staged_folder
from weights.writing.written_file import WrittenFile, checksum, chunks_of, write_file

SMALL_FILES = 100_000_000
"""Allowance, in bytes, for configs, tokenizers and the file system's own needs."""


def write_components(
    components: Sequence[Component],
    target: Path,
    *,
    record: Mapping[str, object] | None = None,
    progress: Progress = ignore,
) -> None:
    """Write all components, then let them replace `target`. Without `record`, a part of a model.

    Disk space is checked when what a killed run left is gone and it is known what can be linked.
    """
    with staged_folder(target) as staging:
        copied = sum(path.stat().st_size for component in components for path in _link(component, staging))
        require_space(target, sum(component.nbytes_written for component in components) + copied + SMALL_FILES)
        written = [file for component in components for file in _write(component, staging, progress)]
        if record is not None:
            text = json_text({**record, "files": [asdict(file) for file in written]})
            write_file(staging / MARKER, [text.encode()])


def _link(component: Component, staging: Path) -> list[Path]:
    """Make the component's folder, hard-link its files; return those that must be copied (from another disk, say)."""
    folder = staging / component.folder
    with disk_errors(folder):
        folder.mkdir(exist_ok=True)
    to_copy = []
    for path in component.links:
        try:
            os.link(path.resolve(), folder / path.name)
        except OSError:
            to_copy.append(path)
    return to_copy


def _write(component: Component, staging: Path, progress: Progress) -> list[WrittenFile]:
    folder = staging / component.folder
    written = [write_file(folder / name, [text.encode()]) for name, text in component.texts.items()]
    if component.moves:
        written += write_shards(component.moves, folder, stem=component.stem, progress=progress)
    written += [_link_or_copy(path, folder / path.name, progress) for path in component.links]
    return [replace(file, name=str(Path(component.folder, file.name))) for file in written]


def _link_or_copy(source: Path, target: Path, progress: Progress) -> WrittenFile:
    """Check the values of a safetensors file; it is linked at `target` already, or else copied there."""
    for tensor in list_safetensors(source).values():
        tensor.read_finite()
        progress(tensor.nbytes)
    if not target.exists():
        return write_file(target, chunks_of(source))
    return WrittenFile(name=target.name, size=target.stat().st_size, crc32=checksum(target))
