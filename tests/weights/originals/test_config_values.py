"""A config that makes no sense is refused in seconds, in one line that names the file and the key."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.harness.original_files import CLIP, DIT_FOLDER, LLAVA, VAE_FOLDER
from tests.harness.refusals import refused, snapshot
from weights.errors import StructureError
from weights.originals.plan_encoders import clip_config, llava_config
from weights.originals.plan_transformer import transformer_config
from weights.originals.plan_vae import vae_config


def change_config(path: Path, change: dict[str, object]) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | change))


@pytest.mark.parametrize(
    ("file", "change", "words"),
    [
        (f"{DIT_FOLDER}/config.json", {"qk_norm": "no_such_norm"}, ["HunyuanVideoTransformer3DModel"]),
        (f"{DIT_FOLDER}/config.json", {"num_layers": "two"}, ["num_layers", "'two'"]),
        (f"{DIT_FOLDER}/config.json", {"num_layers": -2}, ["num_layers", "-2"]),
        (f"{DIT_FOLDER}/config.json", {"rope_axes_dim": [8, "x", 12]}, ["rope_axes_dim"]),
        (f"{VAE_FOLDER}/config.json", {"block_out_channels": [16, 32]}, []),
        (f"{VAE_FOLDER}/config.json", {"block_out_channels": "wide"}, []),
        (f"{VAE_FOLDER}/config.json", {"norm_num_groups": 7}, ["AutoencoderKLHunyuanVideo"]),
        (f"{VAE_FOLDER}/config.json", {"norm_num_groups": 0}, ["norm_num_groups"]),
        (f"{VAE_FOLDER}/config.json", {"down_block_types": 4}, ["down_block_types"]),
        (
            f"{LLAVA}/config.json",
            {"text_config": {"model_type": "llama", "hidden_size": "x"}},
            ["text_config.hidden_size"],
        ),
        (f"{LLAVA}/config.json", {"vision_config": 7}, ["vision_config"]),
        (f"{LLAVA}/config.json", {"image_seq_length": "many"}, ["LlavaConfig"]),
        (f"{CLIP}/config.json", {"num_hidden_layers": 100_000}, ["num_hidden_layers"]),
        (f"{CLIP}/config.json", {"hidden_act": 7}, ["CLIPText"]),
    ],
)
def test_a_config_that_makes_no_sense(
    original: Path, good: Path, file: str, change: dict[str, object], words: list[str]
) -> None:
    change_config(original / file, change)
    refused(original, good, StructureError, file, *words)


NONSENSE = [0, -1, "8", [1], True, 100_000, 1e99, float("nan")]


@pytest.mark.parametrize(
    ("folder", "read", "keys"),
    [
        (DIT_FOLDER, transformer_config, ["num_layers", "attention_head_dim", "in_channels"]),
        (VAE_FOLDER, vae_config, ["layers_per_block", "spatial_compression_ratio", "time_compression_ratio"]),
        (VAE_FOLDER, vae_config, ["sample_size", "sample_tsize", "latent_channels", "norm_num_groups"]),
        (CLIP, clip_config, ["num_hidden_layers", "num_attention_heads", "hidden_size", "intermediate_size"]),
    ],
)
def test_numbers_that_make_no_sense(
    original: Path, folder: str, read: Callable[[Path], object], keys: list[str]
) -> None:
    path = original / folder / "config.json"
    sound = json.loads(path.read_text())
    read(path)
    for key in keys:
        for value in NONSENSE:
            path.write_text(json.dumps(sound | {key: value}))
            with pytest.raises(StructureError, match=rf"{re.escape(str(path))}: {key}: "):
                read(path)


@pytest.mark.parametrize("part", ["text_config", "vision_config"])
def test_numbers_that_make_no_sense_inside_llavas_config(original: Path, part: str) -> None:
    path = original / LLAVA / "config.json"
    sound: dict[str, Any] = json.loads(path.read_text())
    for value in NONSENSE:
        path.write_text(json.dumps(sound | {part: sound[part] | {"num_hidden_layers": value}}))
        with pytest.raises(StructureError, match=rf"{re.escape(str(path))}: {part}.num_hidden_layers: "):
            llava_config(path)
    path.write_text(json.dumps(sound | {part: sound[part] | {"num_hidden_layers": None}}))
    with pytest.raises(StructureError):
        llava_config(path)


def test_the_refusal_is_all_that_is_printed(original: Path, good: Path) -> None:
    """In a process of its own, as a library's warnings do not go where a test captures them."""
    change_config(original / VAE_FOLDER / "config.json", {"act_fn": "none such"})
    change_config(original / CLIP / "config.json", {"unknown": 1, "bos_token_id": 7, "eos_token_id": 9})
    before = snapshot(good)
    command = [sys.executable, "-m", "server", "weights", "convert", str(original), str(good)]
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[3])}
    told = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert told.returncode == 1
    assert told.stdout == ""
    assert told.stderr.startswith(f"error: {original / VAE_FOLDER}/config.json: ")
    assert told.stderr.count("\n") == 1
    assert snapshot(good) == before
