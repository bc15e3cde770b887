"""Tencent's original folder -> a folder `HunyuanCustomPipeline.from_pretrained` loads.

Everything is planned and checked from headers first; then tensors are read, checked and written one by one into a
staging folder that replaces the target at the end. The record of the conversion is written last.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from weights.errors import CheckpointError
from weights.originals.config_check import Config, check_configs
from weights.originals.layout import OriginalFiles, Variant, find_original
from weights.originals.plan_encoders import clip_config, llava_config, plan_clip, plan_llava
from weights.originals.plan_transformer import plan_transformer, transformer_config
from weights.originals.plan_vae import plan_vae, vae_config
from weights.originals.quiet import quiet_libraries
from weights.originals.tokenizer_check import check_tokenizer
from weights.reporter import SILENT, Reporter
from weights.writing.component import Component, json_text
from weights.writing.record import Record
from weights.writing.staging import check_target
from weights.writing.write_components import write_components

FORMAT = 1
"""Version of the conversion; an older one is converted anew by `prepare`."""

SHIFT = 13.0
"""Flow shift of the image-driven model, at 720p and 512p alike (the reference's scripts)."""

MODEL_INDEX: dict[str, Any] = {
    "_class_name": "HunyuanCustomPipeline",
    "scheduler": ["diffusers", "FlowMatchEulerDiscreteScheduler"],
    "text_encoder": ["transformers", "LlavaForConditionalGeneration"],
    "text_encoder_2": ["transformers", "CLIPTextModel"],
    "tokenizer": ["transformers", "PreTrainedTokenizerFast"],
    "tokenizer_2": ["transformers", "CLIPTokenizer"],
    "transformer": ["diffusers", "HunyuanVideoTransformer3DModel"],
    "vae": ["diffusers", "AutoencoderKLHunyuanVideo"],
}
SCHEDULER = {"_class_name": "FlowMatchEulerDiscreteScheduler", "num_train_timesteps": 1000, "shift": SHIFT}


@dataclass(frozen=True, kw_only=True)
class Conversion:
    """What was made: `keys` counts the DiT's tensors, original and produced; `nbytes` is written plus linked."""

    target: Path
    variant: Variant
    original_keys: int
    produced_keys: int
    nbytes: int


def convert(
    original: Path,
    target: Path,
    *,
    variant: Variant | None = None,
    reporter: Reporter = SILENT,
) -> Conversion:
    """Convert `original` (layout: `weights.originals.layout`) into `target`, dtypes as stored.

    Raises `WeightsError`; then `target` is as it was before.
    """
    check_target(target)
    files = find_original(original, variant)
    components = plan(files)
    reporter.start("convert", sum(component.nbytes for component in components))
    record = {"format": FORMAT, "variant": files.variant, "sources": source_stamps(files)}
    write_components(components, target, record=record, progress=reporter.progress)
    transformer = components[0]
    return Conversion(
        target=target,
        variant=files.variant,
        original_keys=len(transformer.moves),
        produced_keys=sum(len(move.pieces) for move in transformer.moves),
        nbytes=sum(component.nbytes for component in components),
    )


@quiet_libraries()
def plan(files: OriginalFiles) -> list[Component]:
    """All components, the transformer first; raises for anything in the originals that will not do."""
    check_tokenizer(files.llava, files.llava)
    scheduler = Component(folder="scheduler", texts={"scheduler_config.json": json_text(SCHEDULER)})
    index = Component(folder="", texts={"model_index.json": json_text(MODEL_INDEX)})
    encoders = [*plan_llava(files.llava), *plan_clip(files.clip)]
    components = [plan_transformer(files), plan_vae(files), scheduler, *encoders, index]
    check_configs(
        transformer=Config(files.dit_config, transformer_config(files.dit_config)),
        vae=Config(files.vae_config, vae_config(files.vae_config)),
        llava=Config(files.llava / "config.json", llava_config(files.llava / "config.json")),
        clip=Config(files.clip / "config.json", clip_config(files.clip / "config.json")),
    )
    return components


def recorded_variant(folder: Path) -> Variant | None:
    """The precision that the conversion in `folder` was made in; None if there is none, or its record is damaged."""
    try:
        return Variant(str(Record.read(folder).variant))
    except (CheckpointError, ValueError):
        return None


def is_current(original: Path, target: Path, variant: Variant | None) -> bool:
    """Whether `target` was converted, by this version, from exactly the files that are in `original` now."""
    try:
        record = Record.read(target)
    except CheckpointError:  # none there, or damaged: whatever it said no longer counts
        return False
    files = find_original(original, variant)
    stamps = source_stamps(files)
    return (record.format, record.variant, record.sources) == (FORMAT, files.variant, stamps)


def source_stamps(files: OriginalFiles) -> dict[str, list[int]]:
    """Size and modification time (ns) of every original the result depends on."""
    paths = [files.dit, files.dit_config, files.vae_config, files.vae]
    paths += [files.scale_map] if files.scale_map else []
    paths += [path for folder in (files.llava, files.clip) for path in sorted(folder.iterdir()) if path.is_file()]
    stats = {f"{path.parent.name}/{path.name}": path.stat() for path in paths if path.is_file()}
    return {name: [stat.st_size, stat.st_mtime_ns] for name, stat in stats.items()}
