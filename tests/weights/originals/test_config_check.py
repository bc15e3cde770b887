"""Parts that do not belong together are refused in one line that names files and keys, before anything is written."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from weights.checks.synthetic import write_original_dit
from weights.convert import convert
from weights.errors import StructureError

DIT = "models/hunyuancustom_720P"
VAE = "models/vae_3d/hyvae_v1_0801"
LLAVA = "models/llava-llama-3-8b-v1_1"
CLIP = "models/openai_clip-vit-large-patch14"


def edited(original: Path, folder: str, **changes: Any) -> dict[str, Any]:
    path = original / folder / "config.json"
    config = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({key: value for key, value in config.items() if value is not ...}))
    return config


def refused(original: Path, tmp_path: Path, *words: str) -> None:
    with pytest.raises(StructureError) as caught:
        convert(original, tmp_path / "out")
    message = str(caught.value)
    assert "\n" not in message
    for word in words:
        assert word in message
    assert not (tmp_path / "out").exists()


def other_dit(original: Path, **changes: Any) -> None:
    """Another DiT, sound in itself."""
    path = original / DIT / "mp_rank_00_model_states.pt"
    path.unlink()
    write_original_dit(path, edited(original, DIT, **changes))


@pytest.mark.parametrize(
    ("key", "value", "other"),
    [
        ("text_embed_dim", 40, (LLAVA, "text_config.hidden_size is 32")),
        ("pooled_projection_dim", 16, (CLIP, "hidden_size is 24")),
        ("in_channels", 8, (VAE, "latent_channels is 16")),
        ("out_channels", 8, (DIT, "in_channels is 16")),
    ],
)
def test_widths_that_one_model_hands_to_the_next(
    original: Path, tmp_path: Path, key: str, value: int, other: tuple[str, str]
) -> None:
    other_dit(original, **{key: value})
    refused(original, tmp_path, f"{DIT}/config.json: {key} is {value}", f"{other[0]}/config.json: {other[1]}")


@pytest.mark.parametrize("axes", [[8, 12, 10], [16, 28, 28], [7, 13, 12]])
def test_rope_axes_that_do_not_fill_a_head(original: Path, tmp_path: Path, axes: list[int]) -> None:
    edited(original, DIT, rope_axes_dim=axes)
    refused(original, tmp_path, f"{DIT}/config.json", "attention_head_dim is 32", f"rope_axes_dim {axes}")


@pytest.mark.parametrize("key", ["scaling_factor", "sample_size", "sample_tsize", "latent_channels"])
def test_a_vae_config_without_what_decides_its_frames(original: Path, tmp_path: Path, key: str) -> None:
    edited(original, VAE, **{key: ...})
    refused(original, tmp_path, f"{VAE}/config.json: {key}: missing")


@pytest.mark.parametrize(
    ("key", "value"), [("sample_size", [32, 64]), ("sample_size", 40), ("sample_size", "256"), ("sample_tsize", 0)]
)
def test_tiles_the_vae_cannot_have(original: Path, tmp_path: Path, key: str, value: Any) -> None:
    edited(original, VAE, **{key: value})
    refused(original, tmp_path, f"{VAE}/config.json: {key}", "a positive multiple of")


def test_a_tile_given_as_height_and_width(original: Path, tmp_path: Path) -> None:
    edited(original, VAE, sample_size=[64, 64])
    convert(original, tmp_path / "out")
    assert json.loads((tmp_path / "out/vae/config.json").read_text())["sample_size"] == 64
