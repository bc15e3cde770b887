"""The reference's tiny model (tests/golden) in a folder laid out as Tencent publishes the large one."""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

GOLDEN = Path(__file__).parents[1] / "golden"

DIT_CONFIG: dict[str, Any] = {
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
"""Its sizes under diffusers' names (hidden 64, 2 heads x 32, 2 + 2 blocks)."""


def dit_weights() -> dict[str, Tensor]:
    """The DiT under its original names."""
    return load_file(GOLDEN / "dit_tiny_weights.safetensors")


def write_original(folder: Path, weights: Mapping[str, Tensor], config: Mapping[str, Any]) -> Path:
    """A complete model, bf16-variant file names, fp32 values."""
    root = folder / "models"
    dit, vae = root / "hunyuancustom_720P", root / "vae_3d/hyvae_v1_0801"
    dit.mkdir(parents=True)
    vae.mkdir(parents=True)
    torch.save({"module": dict(weights)}, dit / "mp_rank_00_model_states.pt")
    (dit / "config.json").write_text(json.dumps(config))
    torch.save({"state_dict": load_file(GOLDEN / "vae_tiny_weights.safetensors")}, vae / "pytorch_model.pt")
    shutil.copy(GOLDEN / "vae_tiny_config.json", vae / "config.json")
    shutil.copytree(GOLDEN / "tiny_llava", root / "llava-llama-3-8b-v1_1")
    shutil.copytree(GOLDEN / "tiny_clip", root / "openai_clip-vit-large-patch14")
    return folder
