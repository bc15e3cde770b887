"""Are the files on disk the model? Originals and converted folders, by size, content and structure.

Findings are collected, not raised: one line each, naming file and key, so that one run shows everything.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

from weights.component import read_json
from weights.convert import FORMAT, encoder_faults, plan
from weights.errors import WeightsError
from weights.lock_file import LockFile, check_hash, check_size
from weights.original_layout import Variant, find_original
from weights.plan_vae import BEYOND_DIFFUSERS
from weights.safetensors_file import list_safetensors
from weights.staging import MARKER
from weights.structure import differences, transformer_shapes, vae_shapes
from weights.tokenizer_check import check_tokenizer, check_tokenizer_folders

_CHUNK = 8 * 2**20
Progress = Callable[[int], None]


def verify(
    folder: Path,
    *,
    variant: Variant | None = None,
    contents: bool = True,
    progress: Progress = lambda count: None,  # noqa: ARG005
) -> list[str]:
    """What is wrong with `folder`, a converted model or originals; an empty list when nothing is.

    `contents` reads every byte and compares checksums; without it sizes and structure only (seconds). `variant`
    chooses among originals.
    """
    if (folder / MARKER).is_file():
        return list(_converted_faults(folder, contents, progress))
    if (folder / "model_index.json").is_file():
        return [f"{folder / MARKER}: missing; this folder was not made by `hunyuan-custom weights convert`"]
    return list(_original_faults(folder, variant, contents, progress))


def _original_faults(folder: Path, variant: Variant | None, contents: bool, progress: Progress) -> Iterator[str]:
    try:
        lock = LockFile.read(folder)
        files = find_original(folder, variant)
    except WeightsError as error:
        yield str(error)
        return
    for name, locked in lock.files.items():
        path = folder / name
        if path.parent == files.dit.parent and path not in {files.dit, files.scale_map}:  # the other variant
            continue
        try:
            check_size(path, locked)
            if contents:
                check_hash(path, locked, progress)
        except WeightsError as error:
            yield str(error)
    try:
        check_tokenizer(files.llava)
        plan(files)
    except WeightsError as error:
        yield str(error)


def _converted_faults(folder: Path, contents: bool, progress: Progress) -> Iterator[str]:
    try:
        record = read_json(folder / MARKER)
        files = {str(file["name"]): (int(file["size"]), int(file["crc32"])) for file in record["files"]}
    except (WeightsError, KeyError, TypeError, ValueError) as error:
        yield f"{folder / MARKER}: cannot be read ({error})"
        return
    if record.get("format") != FORMAT:
        yield f"{folder / MARKER}: format {record.get('format')}, this version makes {FORMAT}; convert again"
        return
    sound = True
    for fault in _file_faults(folder, files, contents, progress):
        sound = False
        yield fault
    if sound:  # else the structure's faults would only repeat what is known
        yield from _structure_faults(folder, fp8=record.get("variant") == Variant.FP8)


def _file_faults(folder: Path, files: dict[str, tuple[int, int]], contents: bool, progress: Progress) -> Iterator[str]:
    for name, (size, crc) in files.items():
        path = folder / name
        if not path.is_file():
            yield f"{path}: missing"
        elif path.stat().st_size != size:
            yield f"{path}: {path.stat().st_size} bytes instead of {size}"
        elif contents and _crc32(path, progress) != crc:
            yield f"{path}: its content has changed since the conversion"
    known = {*files, MARKER}
    for path in sorted(folder.rglob("*.safetensors*")):
        if str(path.relative_to(folder)) not in known:
            yield f"{path}: left over, not part of the conversion"


def _structure_faults(folder: Path, *, fp8: bool) -> Iterator[str]:
    from transformers import CLIPTextModel, LlavaForConditionalGeneration

    try:
        for name in ("transformer", "vae"):
            config = read_json(folder / name / "config.json")
            hidden = BEYOND_DIFFUSERS if name == "vae" else ()
            declared = {key: value for key, value in config.items() if not key.startswith("_") and key not in hidden}
            expected = transformer_shapes(declared, fp8=fp8) if name == "transformer" else vae_shapes(declared)
            found = {
                key: tensor.shape
                for path in sorted((folder / name).glob("*.safetensors"))
                for key, tensor in list_safetensors(path).items()
            }
            for fault in differences(expected, found):
                yield f"{folder / name}: {fault}"
        for name, model_class in (("text_encoder", LlavaForConditionalGeneration), ("text_encoder_2", CLIPTextModel)):
            for fault in encoder_faults(folder / name, model_class):
                yield f"{folder / name}: {fault}"
        check_tokenizer_folders(folder / "tokenizer", folder / "text_encoder")
    except WeightsError as error:
        yield str(error)


def _crc32(path: Path, progress: Progress) -> int:
    crc = 0
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            crc = zlib.crc32(chunk, crc)
            progress(len(chunk))
    return crc
