"""The DiT: original checkpoint -> moves into diffusers' `transformer/` folder."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from weights.errors import CheckpointError, KeyMapError, StructureError
from weights.originals.config_values import check_values
from weights.originals.key_map import DitSizes, convert_scale_map, original_shapes, pieces_of, refuse_sibling
from weights.originals.layout import OriginalFiles, Variant
from weights.originals.structure import compare, is_fp8_layer, transformer_shapes
from weights.originals.torch_checkpoint import list_torch_checkpoint, load_scale_map
from weights.writing.component import Component, json_text, read_json
from weights.writing.move import Move
from weights.writing.safetensors_file import list_safetensors
from weights.writing.stored_tensor import FLOAT8, StoredTensor

FULL_SIZE: dict[str, Any] = {
    "in_channels": 16,
    "out_channels": 16,
    "num_attention_heads": 24,
    "attention_head_dim": 128,
    "num_layers": 20,
    "num_single_layers": 40,
    "num_refiner_layers": 2,
    "mlp_ratio": 4.0,
    "patch_size": 2,
    "patch_size_t": 1,
    "qk_norm": "rms_norm",
    "guidance_embeds": False,
    "text_embed_dim": 4096,
    "pooled_projection_dim": 768,
    "rope_theta": 256.0,
    "rope_axes_dim": [16, 56, 56],
    "image_condition_type": None,
}
"""HunyuanCustom 13B (HYVideo-T/2) as diffusers' config. The published checkpoint brings no config of its own."""

PREFIXES = ("model.", "diffusion_model.", "transformer.")
"""Put before every key by third parties that repackage the DiT as one safetensors file."""


def plan_transformer(files: OriginalFiles) -> Component:
    """Check the DiT's keys, shapes and dtypes against its config and plan its conversion.

    Raises `KeyMapError`, `StructureError` or `CheckpointError`, each naming file and key.
    """
    config = transformer_config(files.dit_config)
    fp8 = files.variant is Variant.FP8
    stored = list_dit(files.dit)
    shapes = {key: tensor.shape for key, tensor in stored.items()}
    sizes = DitSizes.from_config(config)
    with _naming(files.dit):
        refuse_sibling(shapes)
        pieces = {key: pieces_of(key, tensor.rows, sizes) for key, tensor in stored.items()}
    expected = original_shapes(transformer_shapes(config, where=files.dit_config), config)
    compare(expected, shapes, where=files.dit)
    moves = []
    for key, tensor in stored.items():
        fp8_layer = fp8 and is_fp8_layer(key, tensor.shape)
        _check_dtype(tensor, fp8_layer=fp8_layer)
        moves.append(Move(source=tensor, pieces=pieces[key], dtype=FLOAT8 if fp8_layer else tensor.dtype))
    if files.scale_map is not None:
        moves.extend(_scale_moves(files.scale_map, expected, sizes))
    texts = {"config.json": json_text({"_class_name": "HunyuanVideoTransformer3DModel", **config})}
    return Component(folder="transformer", stem="diffusion_pytorch_model", texts=texts, moves=tuple(moves))


def transformer_config(path: Path) -> dict[str, Any]:
    """The full-size config, overridden by the keys of `path` if it exists.

    Raises `StructureError` for keys diffusers does not know, values of another kind than the full size has, and models
    other than the image-driven one.
    """
    config = dict(FULL_SIZE)
    if path.is_file():
        given = {key: value for key, value in read_json(path).items() if not key.startswith("_")}
        unknown = sorted(set(given) - set(config))
        if unknown:
            raise StructureError(f"{path}: {unknown[0]}: not a key of HunyuanVideoTransformer3DModel's config")
        check_values(path, given, FULL_SIZE)
        config |= given
    if config["guidance_embeds"] or config["image_condition_type"] is not None:
        raise StructureError(f"{path}: guidance_embeds, image_condition_type: HunyuanCustom has neither")
    return config


def list_dit(path: Path) -> dict[str, StoredTensor]:
    """Tensors of an original DiT by original key: `.pt`, or safetensors with or without a known prefix."""
    if path.suffix != ".safetensors":
        return list_torch_checkpoint(path)
    stored = list_safetensors(path)
    while prefix := next((p for p in PREFIXES if stored and all(key.startswith(p) for key in stored)), None):
        stored = {key.removeprefix(prefix): tensor for key, tensor in stored.items()}
    return stored


@contextlib.contextmanager
def _naming(path: Path) -> Iterator[None]:
    """The key table knows keys; the file they are in is put before them."""
    try:
        yield
    except KeyMapError as error:
        raise type(error)(f"{path}: {error}") from error


def _check_dtype(tensor: StoredTensor, *, fp8_layer: bool) -> None:
    if not tensor.dtype.is_floating_point:
        raise CheckpointError(f"{tensor.path}: {tensor.key}: dtype {tensor.dtype}, floating point is needed")
    if tensor.dtype.itemsize == 1 and not (fp8_layer and tensor.dtype == FLOAT8):
        raise CheckpointError(f"{tensor.path}: {tensor.key}: {tensor.dtype} without a scale map; use the fp8 variant")


def _scale_moves(path: Path, originals: Mapping[str, tuple[int, ...]], sizes: DitSizes) -> list[Move]:
    rows = {key.removesuffix(".weight"): shape[0] for key, shape in originals.items() if is_fp8_layer(key, shape)}
    given = load_scale_map(path)
    for module, scale in given.items():
        if scale.numel() not in {1, rows.get(module)}:
            raise StructureError(f"{path}: {module}: {scale.numel()} scales for {rows.get(module)} rows")
    with _naming(path):
        scales = convert_scale_map(given, rows, sizes=sizes)
    return [Move.whole(StoredTensor.in_memory(name, scale, path), name) for name, scale in scales.items()]
