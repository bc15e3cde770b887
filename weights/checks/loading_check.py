"""Can this folder be loaded at all? Answered from names, sizes and headers within seconds, before anything is read."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from weights.convert import MODEL_INDEX, recorded_variant
from weights.errors import CheckpointError, VerifyError, WeightsError
from weights.originals.layout import Variant
from weights.writing.component import read_json
from weights.writing.record import Record
from weights.writing.safetensors_file import list_safetensors
from weights.writing.staging import MARKER


def check_loadable(folder: Path) -> None:
    """Raise `VerifyError`: the first file that is missing, truncated or corrupt, and the command that repairs it."""
    command = prepare_command(folder, recorded_variant(folder))
    if not (folder / "model_index.json").is_file():
        raise VerifyError(f"{folder}: no model here (no model_index.json); run: {command}")
    for fault in _faults(folder):
        raise VerifyError(f"{fault}; run: {command}")


def prepare_command(folder: Path, variant: Variant | None) -> str:
    """What makes the folder anew in this precision, if one is known."""
    precision = "" if variant is None else f" --variant {variant}"
    return f"hunyuan-custom weights prepare{precision} --out {folder}"


def _faults(folder: Path) -> Iterator[str]:
    try:
        if (folder / MARKER).is_file():
            for file in Record.read(folder).files():
                path = folder / file.name
                if not path.is_file():
                    yield f"{path}: missing"
                elif path.stat().st_size != file.size:
                    yield f"{path}: {path.stat().st_size} bytes instead of {file.size} (truncated?)"
        for name in (key for key in MODEL_INDEX if not key.startswith("_")):
            if not (folder / name).is_dir():
                yield f"{folder / name}: missing"
            for index in sorted((folder / name).glob("*.safetensors.index.json")):
                for shard in _shards(index):
                    if not (folder / name / shard).is_file():
                        yield f"{folder / name / shard}: missing"
            for path in sorted((folder / name).glob("*.safetensors")):
                list_safetensors(path)
    except WeightsError as error:
        yield str(error)


def _shards(index: Path) -> list[str]:
    """Names of files. Raises `CheckpointError`."""
    try:
        return sorted(set(read_json(index)["weight_map"].values()))
    except (KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{index}: cannot be read ({error!r})") from error
