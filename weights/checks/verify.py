"""Are the files on disk the model? Originals and converted folders, by size, content and structure.

Findings are collected, not raised: one line each, naming file and key, so that one run shows everything.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from weights.checks.companion_check import companion_faults
from weights.checks.loading_check import prepare_command
from weights.convert import FORMAT, plan, recorded_variant
from weights.errors import CheckpointError, ManifestError, WeightsError
from weights.hub.lock_file import LOCK_NAME, LockFile, check_hash, check_size
from weights.originals.encoder_check import encoder_faults, is_computed
from weights.originals.layout import Variant, find_original
from weights.originals.plan_encoders import clip_config
from weights.originals.plan_vae import BEYOND_DIFFUSERS
from weights.originals.quiet import quiet_libraries
from weights.originals.structure import Faults, differences, transformer_shapes, vae_shapes, wrong_dtypes
from weights.originals.tokenizer_check import check_clip_tokenizer, check_tokenizer
from weights.reporter import SILENT, Progress, Reporter
from weights.writing.component import read_json
from weights.writing.record import Record
from weights.writing.safetensors_file import list_safetensors
from weights.writing.staging import MARKER, left_overs
from weights.writing.stored_tensor import StoredTensor
from weights.writing.written_file import WrittenFile, checksum


def verify(
    folder: Path,
    *,
    variant: Variant | None = None,
    contents: bool = True,
    reporter: Reporter = SILENT,
) -> list[str]:
    """What is wrong with `folder`, a converted model, a companion or originals; an empty list when nothing is.

    `contents` reads every byte and compares checksums; without it sizes and structure only (seconds). `variant` chooses
    among originals, and is what a conversion must be. `reporter.say` gets what is no fault and yet worth knowing: what
    could not be compared, what an unfinished run holds.
    """
    if (folder / MARKER).is_file():
        _report_left_overs(folder, reporter)
        return list(_converted_faults(folder, variant, contents=contents, reporter=reporter))
    if (folder / "model_index.json").is_file():
        return [f"{folder / MARKER}: missing; this folder was not made by `hunyuan-custom weights convert`"]
    if (folder / "config.json").is_file():
        return list(companion_faults(folder, contents=contents, progress=reporter.progress))
    return list(_original_faults(folder, variant, contents=contents, reporter=reporter))


def _report_left_overs(folder: Path, reporter: Reporter) -> None:
    for path in left_overs(folder):
        size = sum(file.stat().st_size for file in path.rglob("*") if file.is_file() and file.stat().st_nlink == 1)
        reporter.say(f"{path}: {size / 1e9:.1f} GB of a conversion that runs or was killed; the next one removes it")


def _original_faults(folder: Path, variant: Variant | None, *, contents: bool, reporter: Reporter) -> Iterator[str]:
    try:
        files = find_original(folder, variant)
        download = f"hunyuan-custom weights download --variant {files.variant} --originals {folder}"
        lock = LockFile.read(folder)
    except ManifestError as error:
        yield f"{error}; delete it and run: {download}"  # which asks the hub, and fetches only what differs
        return
    except WeightsError as error:
        yield str(error)
        return
    if contents and not lock.files:
        reporter.say(f"{folder / LOCK_NAME}: missing, so there are no hashes to compare with: structure only")
    for part in sorted(folder.rglob(".*.part")):
        reporter.say(f"{part}: {part.stat().st_size / 1e9:.1f} GB of an unfinished download, which goes on there")
    of_variant = {
        name: locked
        for name, locked in lock.files.items()
        if (folder / name).parent != files.dit.parent or folder / name in {files.dit, files.scale_map}
    }
    reporter.start("verify", sum(locked.size for locked in of_variant.values()) if contents else 0)
    for name, locked in of_variant.items():
        path = folder / name
        try:
            check_size(path, locked)
        except WeightsError as error:
            yield f"{error}; run: {download}"
            continue
        try:
            if contents:
                check_hash(path, locked, reporter.progress)
        except WeightsError as error:
            yield f"{error}; delete it and run: {download}"
    try:
        plan(files)
    except WeightsError as error:
        yield str(error)


def _converted_faults(folder: Path, variant: Variant | None, *, contents: bool, reporter: Reporter) -> Iterator[str]:
    made = recorded_variant(folder)
    again = f"run: {prepare_command(folder, variant or made)}"
    if made is not None and variant not in {None, made}:
        yield f"{folder}: is {made}, not {variant}; to replace it {again}"
        return
    try:
        record = Record.read(folder)
        files = record.files()
    except CheckpointError as error:
        yield f"{error}; {again}"
        return
    if made is None or record.format != FORMAT:
        found = f"format {record.format} of {record.variant}"
        yield f"{folder / MARKER}: {found}, this version makes {FORMAT} of {' or '.join(Variant)}; {again}"
        return
    reporter.start("verify", sum(file.size for file in files) if contents else 0)
    sound = True
    for fault in _file_faults(folder, files, contents, reporter.progress):
        sound = False
        yield fault
    if sound:  # else the structure's faults would only repeat what is known
        with quiet_libraries():
            faults = list(_structure_faults(folder, fp8=made is Variant.FP8))
        yield from faults


def _file_faults(folder: Path, files: Sequence[WrittenFile], contents: bool, progress: Progress) -> Iterator[str]:
    for file in files:
        path = folder / file.name
        if not path.is_file():
            yield f"{path}: missing ({file.size} bytes)"
        elif path.stat().st_size != file.size:
            yield f"{path}: {path.stat().st_size} bytes instead of {file.size}"
        elif contents:
            try:
                if checksum(path, progress) != file.crc32:
                    yield f"{path}: its content has changed since the conversion; delete it and convert again"
            except CheckpointError as error:
                yield str(error)
    known = {file.name for file in files} | {MARKER}
    for path in sorted(folder.rglob("*.safetensors*")):
        if str(path.relative_to(folder)) not in known:
            yield f"{path}: left over ({path.stat().st_size} bytes), not part of the conversion"


def _structure_faults(folder: Path, *, fp8: bool) -> Iterator[str]:
    """One line for every key."""
    from transformers import CLIPTextModel, LlavaForConditionalGeneration

    for check in (
        partial(_diffusers_faults, folder / "transformer", fp8=fp8),
        partial(_diffusers_faults, folder / "vae", fp8=False),
        partial(_encoder_faults, folder / "text_encoder", LlavaForConditionalGeneration),
        partial(_encoder_faults, folder / "text_encoder_2", CLIPTextModel),
    ):
        try:
            for kind, names in check().items():
                yield from (f"{check.args[0]}: {kind}: {name}" for name in names)
        except WeightsError as error:
            yield str(error)
    try:
        check_tokenizer(folder / "tokenizer", folder / "text_encoder")
    except WeightsError as error:
        yield str(error)
    try:
        vocabulary = clip_config(folder / "text_encoder_2/config.json")["vocab_size"]
        check_clip_tokenizer(folder / "tokenizer_2", vocabulary=vocabulary)
    except WeightsError as error:
        yield str(error)


def _diffusers_faults(folder: Path, *, fp8: bool) -> Faults:
    path = folder / "config.json"
    config = {key: value for key, value in read_json(path).items() if not key.startswith("_")}
    if folder.name == "transformer":
        expected = transformer_shapes(config, fp8=fp8, where=path)
    else:
        declared = {key: value for key, value in config.items() if key not in BEYOND_DIFFUSERS}
        expected = vae_shapes(declared, where=path)
    found = _stored(folder)
    faults = differences(expected, {name: tensor.shape for name, tensor in found.items()})
    if wrong := wrong_dtypes({name: tensor.dtype for name, tensor in found.items()}, fp8=fp8):
        faults["wrong dtype"] = wrong
    return faults


def _encoder_faults(folder: Path, model_class: Any) -> Faults:
    faults = dict(encoder_faults(folder, model_class, config=folder / "config.json"))
    floats = {name: tensor.dtype for name, tensor in _stored(folder).items() if not is_computed(name)}
    if wrong := wrong_dtypes(floats, fp8=False):
        faults["wrong dtype"] = wrong
    return faults


def _stored(folder: Path) -> dict[str, StoredTensor]:
    return {
        key: tensor for path in sorted(folder.glob("*.safetensors")) for key, tensor in list_safetensors(path).items()
    }
