"""The VAE: `pytorch_model.pt` and its config -> diffusers' `vae/` folder."""

from __future__ import annotations

import reprlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from weights.errors import StructureError
from weights.originals.config_values import check_values
from weights.originals.key_map import strip_vae_prefix
from weights.originals.layout import OriginalFiles
from weights.originals.structure import check_dtypes, compare, vae_shapes
from weights.originals.torch_checkpoint import list_torch_checkpoint
from weights.writing.component import Component, json_text, read_json
from weights.writing.move import Move

FULL_SIZE: dict[str, Any] = {
    "in_channels": 3,
    "out_channels": 3,
    "latent_channels": 16,
    "block_out_channels": [128, 256, 512, 512],
    "layers_per_block": 2,
    "act_fn": "silu",
    "norm_num_groups": 32,
    "scaling_factor": 0.476986,
    "spatial_compression_ratio": 8,
    "mid_block_add_attention": True,
}
"""884-16c-hy0801, by the keys that the original config and `AutoencoderKLHunyuanVideo` share."""

TIME_RATIO = "time_compression_ratio"
"""The original's name of diffusers' `temporal_compression_ratio`."""

BEYOND_DIFFUSERS = ("sample_size", "sample_tsize", "mid_block_causal_attn")
"""Keys diffusers' class does not declare; kept in its config.json under their original names for the pipeline."""

NEEDED = ("scaling_factor", "sample_size", "sample_tsize", "latent_channels")
"""Keys whose defaults may differ between the two classes: without them the frames would be subtly wrong."""


def plan_vae(files: OriginalFiles) -> Component:
    """Check the VAE's keys, shapes and dtypes against its config; plan its conversion. Raises as `plan_transformer`."""
    config = vae_config(files.vae_config)
    stored = strip_vae_prefix(list_torch_checkpoint(files.vae))
    declared = {key: value for key, value in config.items() if key not in BEYOND_DIFFUSERS}
    expected = vae_shapes(declared, where=files.vae_config)
    compare(expected, {key: tensor.shape for key, tensor in stored.items()}, where=files.vae)
    check_dtypes({key: tensor.dtype for key, tensor in stored.items()}, where=files.vae)
    return Component(
        folder="vae",
        stem="diffusion_pytorch_model",
        texts={"config.json": json_text({"_class_name": "AutoencoderKLHunyuanVideo", **config})},
        moves=tuple(Move.whole(tensor, name) for name, tensor in stored.items()),
    )


def vae_config(path: Path) -> dict[str, Any]:
    """The original's config (`AutoencoderKLCausal3D`) as diffusers' config. Raises `StructureError`."""
    original = read_json(path)
    if original.get("shift_factor"):
        raise StructureError(f"{path}: shift_factor: {original['shift_factor']}, the HunyuanCustom VAE has none")
    for key in NEEDED:
        if key not in original:
            raise StructureError(f"{path}: {key}: missing; it is read, not assumed")
    check_values(path, original, FULL_SIZE | {TIME_RATIO: 4})
    config = {key: original[key] for key in FULL_SIZE if key in original}
    if TIME_RATIO in original:
        config["temporal_compression_ratio"] = original[TIME_RATIO]
    for key, block in (("down_block_types", "HunyuanVideoDownBlock3D"), ("up_block_types", "HunyuanVideoUpBlock3D")):
        if key in original:
            blocks = len(FULL_SIZE["block_out_channels"])
            if not isinstance(original[key], list) or len(original[key]) != blocks:
                raise StructureError(f"{path}: {key}: {reprlib.repr(original[key])}, a list of {blocks} is needed")
            config[key] = [block] * blocks
    space, time = original.get("spatial_compression_ratio", 8), original.get(TIME_RATIO, 4)
    config["sample_size"] = _tile(original, "sample_size", path, multiple=4 * space, full_size=256)
    config["sample_tsize"] = _tile(original, "sample_tsize", path, multiple=4 * time, full_size=64)
    # The original class attends across all frames unless told otherwise; the pipeline takes absence for causal.
    config["mid_block_causal_attn"] = bool(original.get("mid_block_causal_attn", False))
    return config


def _tile(original: Mapping[str, Any], key: str, path: Path, *, multiple: int, full_size: int) -> int:
    """A tile's size: tiles overlap by a quarter, which must be whole latents. Of [height, width] both must agree."""
    given = original[key]
    first, *others = given if isinstance(given, list) and given else [given]
    if not isinstance(first, int) or first < 1 or first % multiple or any(size != first for size in others):
        raise StructureError(f"{path}: {key}: {reprlib.repr(given)}, a positive multiple of {multiple} is needed")
    check_values(path, {key: first}, {key: full_size})
    return first
