"""Tiny checkpoints made by the reference (tests/golden), as the tests of this folder want them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

GOLDEN = Path(__file__).parents[1] / "golden"


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def dit_weights() -> dict[str, Tensor]:
    """The tiny DiT under its original names."""
    return load_file(GOLDEN / "dit_tiny_weights.safetensors")


@pytest.fixture(scope="session")
def dit_config() -> dict[str, Any]:
    """The tiny DiT's sizes under diffusers' names (tests/golden: hidden 64, 2 heads x 32, 2 + 2 blocks)."""
    return {
        "in_channels": 16,
        "out_channels": 16,
        "num_attention_heads": 2,
        "attention_head_dim": 32,
        "num_layers": 2,
        "num_single_layers": 2,
        "num_refiner_layers": 2,
        "mlp_ratio": 4.0,
        "patch_size": 2,
        "patch_size_t": 1,
        "qk_norm": "rms_norm",
        "guidance_embeds": False,
        "text_embed_dim": 32,
        "pooled_projection_dim": 24,
        "rope_theta": 256.0,
        "rope_axes_dim": [8, 12, 12],
        "image_condition_type": None,
    }


@pytest.fixture
def original(tmp_path: Path, dit_weights: dict[str, Tensor], dit_config: dict[str, Any]) -> Path:
    """A complete tiny model in the original layout, bf16-variant file names, fp32 values."""
    root = tmp_path / "originals" / "models"
    dit, vae = root / "hunyuancustom_720P", root / "vae_3d/hyvae_v1_0801"
    dit.mkdir(parents=True)
    vae.mkdir(parents=True)
    torch.save({"module": dit_weights}, dit / "mp_rank_00_model_states.pt")
    (dit / "config.json").write_text(json.dumps(dit_config))
    torch.save({"state_dict": load_file(GOLDEN / "vae_tiny_weights.safetensors")}, vae / "pytorch_model.pt")
    shutil.copy(GOLDEN / "vae_tiny_config.json", vae / "config.json")
    shutil.copytree(GOLDEN / "tiny_llava", root / "llava-llama-3-8b-v1_1")
    shutil.copytree(GOLDEN / "tiny_clip", root / "openai_clip-vit-large-patch14")
    return root.parent


@pytest.fixture(scope="session")
def golden() -> Path:
    """Folder of the tensors made by the reference."""
    return GOLDEN
