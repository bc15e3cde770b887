"""Where the parts are in a folder laid out as Tencent publishes it.

[models/]hunyuancustom_720P/mp_rank_00_model_states.pt            DiT, bf16
[models/]hunyuancustom_720P/mp_rank_00_model_states_fp8.pt        DiT, fp8, with ..._fp8_map.pt
[models/]hunyuancustom_720P/<any one>.safetensors                 DiT as third parties repackage it
[models/]hunyuancustom_720P/config.json                           optional: sizes under diffusers' names
[models/]vae_3d/hyvae_v1_0801/{config.json,pytorch_model.pt}      VAE
[models/]llava-llama-3-8b-v1_1/                                   LLaVA and its tokenizer
[models/]openai_clip-vit-large-patch14/                           CLIP and its tokenizer
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from weights.errors import CheckpointError, WrongModelError

DIT_FOLDER = "hunyuancustom_720P"
DIT_NAME = "mp_rank_00_model_states"
VAE_FOLDER = "vae_3d/hyvae_v1_0801"
LLAVA_FOLDER = "llava-llama-3-8b-v1_1"
CLIP_FOLDER = "openai_clip-vit-large-patch14"


class Variant(StrEnum):
    """Precision the DiT is stored in."""

    BF16 = "bf16"
    FP8 = "fp8"


@dataclass(frozen=True, kw_only=True)
class OriginalFiles:
    """Paths of one image-driven model. `scale_map` is set for fp8."""

    variant: Variant
    dit: Path
    scale_map: Path | None
    dit_config: Path
    vae_config: Path
    vae: Path
    llava: Path
    clip: Path


def find_original(folder: Path, variant: Variant | None = None) -> OriginalFiles:
    """Find every part under `folder` or `folder/models`; without `variant`, bf16 is preferred to fp8.

    Raises `CheckpointError` that names the first missing part, `WrongModelError` for a folder that holds only the
    audio or editing variant.
    """
    root = folder / "models" if (folder / "models").is_dir() else folder
    dit_folder = root / DIT_FOLDER
    if not dit_folder.is_dir():
        for sibling in ("audio", "editing"):
            if (root / f"hunyuancustom_{sibling}_720P").is_dir():
                raise WrongModelError(f"{root}: holds the {sibling} variant; {DIT_FOLDER} is needed")
        raise CheckpointError(f"{dit_folder}: missing")
    dit, found = _find_dit(dit_folder, variant)
    files = OriginalFiles(
        variant=found,
        dit=dit,
        scale_map=dit.with_name(f"{dit.stem}_map.pt") if found is Variant.FP8 else None,
        dit_config=dit_folder / "config.json",
        vae_config=root / VAE_FOLDER / "config.json",
        vae=root / VAE_FOLDER / "pytorch_model.pt",
        llava=root / LLAVA_FOLDER,
        clip=root / CLIP_FOLDER,
    )
    for needed in (files.vae_config, files.vae, files.llava / "config.json", files.clip / "config.json"):
        if not needed.is_file():
            raise CheckpointError(f"{needed}: missing")
    return files


def _find_dit(folder: Path, variant: Variant | None) -> tuple[Path, Variant]:
    plain, fp8 = folder / f"{DIT_NAME}.pt", folder / f"{DIT_NAME}_fp8.pt"
    if variant is not Variant.FP8 and plain.is_file():
        return plain, Variant.BF16
    if variant is not Variant.BF16 and fp8.is_file():
        return fp8, Variant.FP8
    repackaged = sorted(folder.glob("*.safetensors"))
    if variant is not Variant.FP8 and len(repackaged) == 1:
        return repackaged[0], Variant.BF16
    if len(repackaged) > 1:
        raise CheckpointError(f"{folder}: {len(repackaged)} safetensors files; one is expected")
    raise CheckpointError(f"{fp8 if variant is Variant.FP8 else plain}: missing")
