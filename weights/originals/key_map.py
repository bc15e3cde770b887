"""Names of Tencent's DiT checkpoint -> names of diffusers' `HunyuanVideoTransformer3DModel`, as one table.

Every split of the original is a split of rows (dim 0) and the final layer's swap exchanges two halves of the rows, so a
converted tensor is nothing but row ranges of one original tensor. `pieces_of` says which; a caller with tensors in
memory slices them (`convert_transformer_state_dict`), a caller that streams copies the byte ranges.

    C  hidden size (heads x head dim)       M  MLP size (C x mlp_ratio)

Source of the table: the reference's module names, checked by a strict load and golden outputs.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from torch import Tensor

from weights.errors import KeyMapError, WrongModelError
from weights.writing.move import Piece

T = TypeVar("T")

SCALE_NAME = "weight_scale"
"""An fp8 layer `<module>` is stored as `<module>.weight` (float8_e4m3fn) and `<module>.weight_scale` (fp32, [1], or
[rows, 1] where the original has a scale per row). The weight in use is `weight * weight_scale`, both taken as bf16,
product rounded to bf16."""


@dataclass(frozen=True, kw_only=True)
class DitSizes:
    """The two widths that rows are split by."""

    hidden: int
    mlp: int

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> DitSizes:
        """Sizes of a diffusers transformer config (`num_attention_heads`, `attention_head_dim`, `mlp_ratio`)."""
        hidden = int(config["num_attention_heads"]) * int(config["attention_head_dim"])
        return cls(hidden=hidden, mlp=int(hidden * float(config["mlp_ratio"])))


# `*` stands for a block's number, which is carried over. Widths: C and M as above.
_DOUBLE, _SINGLE, _REFINER = (
    "transformer_blocks.*",
    "single_transformer_blocks.*",
    "context_embedder.token_refiner.refiner_blocks.*",
)
_TXT = "txt_in.individual_token_refiner.blocks.*"
_TIME = "time_text_embed.timestep_embedder"
_POOLED = "time_text_embed.text_embedder"
_RENAMED: dict[str, str] = {
    "img_in.proj": "x_embedder.proj",
    "time_in.mlp.0": f"{_TIME}.linear_1",
    "time_in.mlp.2": f"{_TIME}.linear_2",
    "vector_in.in_layer": f"{_POOLED}.linear_1",
    "vector_in.out_layer": f"{_POOLED}.linear_2",
    "txt_in.input_embedder": "context_embedder.proj_in",
    "txt_in.t_embedder.mlp.0": f"context_embedder.{_TIME}.linear_1",
    "txt_in.t_embedder.mlp.2": f"context_embedder.{_TIME}.linear_2",
    "txt_in.c_embedder.linear_1": f"context_embedder.{_POOLED}.linear_1",
    "txt_in.c_embedder.linear_2": f"context_embedder.{_POOLED}.linear_2",
    f"{_TXT}.norm1": f"{_REFINER}.norm1",
    f"{_TXT}.norm2": f"{_REFINER}.norm2",
    f"{_TXT}.self_attn_proj": f"{_REFINER}.attn.to_out.0",
    f"{_TXT}.mlp.fc1": f"{_REFINER}.ff.net.0.proj",
    f"{_TXT}.mlp.fc2": f"{_REFINER}.ff.net.2",
    f"{_TXT}.adaLN_modulation.1": f"{_REFINER}.norm_out.linear",
    "double_blocks.*.img_mod.linear": f"{_DOUBLE}.norm1.linear",
    "double_blocks.*.txt_mod.linear": f"{_DOUBLE}.norm1_context.linear",
    "double_blocks.*.img_attn_q_norm": f"{_DOUBLE}.attn.norm_q",
    "double_blocks.*.img_attn_k_norm": f"{_DOUBLE}.attn.norm_k",
    "double_blocks.*.txt_attn_q_norm": f"{_DOUBLE}.attn.norm_added_q",
    "double_blocks.*.txt_attn_k_norm": f"{_DOUBLE}.attn.norm_added_k",
    "double_blocks.*.img_attn_proj": f"{_DOUBLE}.attn.to_out.0",
    "double_blocks.*.txt_attn_proj": f"{_DOUBLE}.attn.to_add_out",
    "double_blocks.*.img_mlp.fc1": f"{_DOUBLE}.ff.net.0.proj",
    "double_blocks.*.img_mlp.fc2": f"{_DOUBLE}.ff.net.2",
    "double_blocks.*.txt_mlp.fc1": f"{_DOUBLE}.ff_context.net.0.proj",
    "double_blocks.*.txt_mlp.fc2": f"{_DOUBLE}.ff_context.net.2",
    "single_blocks.*.linear2": f"{_SINGLE}.proj_out",
    "single_blocks.*.q_norm": f"{_SINGLE}.attn.norm_q",
    "single_blocks.*.k_norm": f"{_SINGLE}.attn.norm_k",
    "single_blocks.*.modulation.linear": f"{_SINGLE}.norm.linear",
    "final_layer.linear": "proj_out",
}
_SPLIT: dict[str, tuple[tuple[str, str], ...]] = {  # original -> (new name, width) from the first row down
    f"{_TXT}.self_attn_qkv": tuple((f"{_REFINER}.attn.to_{x}", "C") for x in "qkv"),
    "double_blocks.*.img_attn_qkv": tuple((f"{_DOUBLE}.attn.to_{x}", "C") for x in "qkv"),
    "double_blocks.*.txt_attn_qkv": tuple((f"{_DOUBLE}.attn.add_{x}_proj", "C") for x in "qkv"),
    "single_blocks.*.linear1": (
        *((f"{_SINGLE}.attn.to_{x}", "C") for x in "qkv"),
        (f"{_SINGLE}.proj_mlp", "M"),
    ),
}
# [shift; scale] in the original, [scale; shift] in diffusers' AdaLayerNormContinuous.
_SWAPPED: dict[str, str] = {"final_layer.adaLN_modulation.1": "norm_out.linear"}

_SIBLINGS: tuple[tuple[str, str], ...] = (  # prefixes of keys only they have
    ("audio_proj.", "the audio variant of HunyuanCustom"),
    ("audio_models.", "the audio variant of HunyuanCustom"),
    ("bg_in.", "the editing variant of HunyuanCustom"),
    ("bg_proj.", "the editing variant of HunyuanCustom"),
    ("guidance_in.", "HunyuanVideo with its guidance embedding"),
    ("vision_in.", "HunyuanVideo 1.5"),
    ("byt5_in.", "HunyuanVideo 1.5"),
    ("cond_type_embedding", "HunyuanVideo 1.5"),
)
_PATCHES, _WIDTH_OF_1_5 = "img_in.proj.weight", 2048


def pieces_of(key: str, rows: int, sizes: DitSizes) -> tuple[Piece, ...]:
    """Converted tensors that the original tensor `key` of `rows` rows becomes.

    Raises `WrongModelError` for a key of a sibling model, `KeyMapError` for any other unknown key and for rows that
    do not add up.
    """
    path, _, kind = key.rpartition(".")
    number = re.search(r"(?<=blocks\.)\d+", path)
    pattern = re.sub(r"(?<=blocks\.)\d+", "*", path)

    def name(template: str) -> str:
        return f"{template.replace('*', number[0]) if number else template}.{kind}"

    if kind in {"weight", "bias"}:
        if pattern in _RENAMED:
            return (Piece(name(_RENAMED[pattern]), ((0, rows),)),)
        if pattern in _SPLIT:
            widths = {"C": sizes.hidden, "M": sizes.mlp}
            pieces, start = [], 0
            for template, width in _SPLIT[pattern]:
                pieces.append(Piece(name(template), ((start, start + widths[width]),)))
                start += widths[width]
            if start != rows:
                raise KeyMapError(f"{key}: {rows} rows, the config's sizes need {start}")
            return tuple(pieces)
        if pattern in _SWAPPED:
            if rows != 2 * sizes.hidden:
                raise KeyMapError(f"{key}: {rows} rows, the config's sizes need {2 * sizes.hidden}")
            half = sizes.hidden
            return (Piece(name(_SWAPPED[pattern]), ((half, rows), (0, half))),)
    refuse_sibling({key: ()})
    raise KeyMapError(f"{key}: not a key of the HunyuanCustom DiT")


def refuse_sibling(shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Raise `WrongModelError` for a key that only a sibling model has, or has of this width.

    Asked of all keys before any size is compared: a sibling of other widths would be refused for those alone.
    """
    for prefix, model in _SIBLINGS:
        for key in shapes:
            if key.startswith(prefix):
                raise WrongModelError(f"{key}: this is {model}, not the image-driven HunyuanCustom")
    if shapes.get(_PATCHES, ())[:1] == (_WIDTH_OF_1_5,):
        raise WrongModelError(f"{_PATCHES}: {_WIDTH_OF_1_5} wide: this is HunyuanVideo 1.5, not HunyuanCustom")


def original_shapes(converted: Mapping[str, tuple[int, ...]], config: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """Keys and shapes of the original checkpoint whose conversion has the shapes `converted`: the table backwards.

    `config` holds diffusers' transformer keys.
    """
    sizes = DitSizes.from_config(config)
    counts = {"double": "num_layers", "single": "num_single_layers", "txt_in": "num_refiner_layers"}
    shapes: dict[str, tuple[int, ...]] = {}
    for pattern in (*_RENAMED, *_SPLIT, *_SWAPPED):
        numbers = range(config[counts[pattern.split("_blocks")[0].split(".")[0]]]) if "*" in pattern else (0,)
        for number in numbers:
            for kind in ("weight", "bias"):
                key = f"{pattern.replace('*', str(number))}.{kind}"
                parts = [converted.get(piece.name) for piece in pieces_of(key, _rows_of(pattern, sizes), sizes)]
                found = [shape for shape in parts if shape is not None]
                if found:
                    shapes[key] = (sum(shape[0] for shape in found), *found[0][1:])
    return shapes


def _rows_of(pattern: str, sizes: DitSizes) -> int:
    """Rows of an original tensor that is split or swapped; of no meaning for the others."""
    widths = {"C": sizes.hidden, "M": sizes.mlp}
    return sum(widths[width] for _, width in _SPLIT[pattern]) if pattern in _SPLIT else 2 * sizes.hidden


def convert_transformer_state_dict(
    original: Mapping[str, Tensor], *, config: Mapping[str, Any] | None = None
) -> dict[str, Tensor]:
    """The DiT's original state dict (names of `["module"]`) under diffusers' names; dtypes and values untouched.

    `config` holds diffusers' transformer keys; without it the two widths are read off the tensors. Split tensors
    own their memory, so that the originals can be freed. Raises as `pieces_of`.
    """
    sizes = DitSizes.from_config(config) if config is not None else _sizes_of(original)
    converted: dict[str, Tensor] = {}
    for key, tensor in original.items():
        for piece in pieces_of(key, tensor.shape[0], sizes):
            converted[piece.name] = piece.cut(tensor)
    return converted


def convert_scale_map(scales: Mapping[str, Tensor], modules: Iterable[str], *, sizes: DitSizes) -> dict[str, Tensor]:
    """Scales of `..._fp8_map.pt` (original module path -> scale) as `<new module>.weight_scale`, fp32.

    `modules` are the original paths of the Linears in double and single blocks; each must have a scale and no other
    may. A scale per tensor ([1] in the result) is copied to every part of a split layer, a scale per output row
    ([rows, 1]) is split with the rows. Raises `KeyMapError`.
    """
    wanted = sorted(modules)
    lost = sorted(set(scales) - set(wanted))
    if lost:
        raise KeyMapError(f"{lost[0]}: a scale without an fp8 layer ({len(lost)} of them)")
    converted: dict[str, Tensor] = {}
    for module in wanted:
        if module not in scales:
            raise KeyMapError(f"{module}: no scale in the fp8 map")
        scale = scales[module].float().reshape(-1, 1)
        rows = _rows_of(re.sub(r"(?<=blocks\.)\d+", "*", module), sizes) if len(scale) == 1 else len(scale)
        for piece in pieces_of(f"{module}.weight", rows, sizes):
            part = scale[0] if len(scale) == 1 else piece.cut(scale)
            converted[f"{piece.name.removesuffix('.weight')}.{SCALE_NAME}"] = part.clone()
    return converted


def strip_vae_prefix(original: Mapping[str, T]) -> dict[str, T]:
    """The VAE's keys without their leading `vae.`; otherwise they are diffusers' names already.

    Training leftovers (`loss.*`) are dropped, as the reference does; any other unknown key is left in for the strict
    comparison to name.
    """
    return {key.removeprefix("vae."): value for key, value in original.items() if not key.startswith("loss.")}


def _sizes_of(original: Mapping[str, Tensor]) -> DitSizes:
    try:
        hidden = original["img_in.proj.bias"].shape[0]
        mlp = next(tensor.shape[0] for key, tensor in original.items() if key.endswith("img_mlp.fc1.bias"))
    except (KeyError, StopIteration):
        raise KeyMapError("img_in.proj.bias or double_blocks.*.img_mlp.fc1.bias: not in the checkpoint") from None
    return DitSizes(hidden=hidden, mlp=mlp)
