"""A random model in Tencent's layout whose every size differs from the reference's tiny one; fp32."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKLHunyuanVideo
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
)

from weights.originals.key_map import original_shapes
from weights.originals.plan_transformer import FULL_SIZE
from weights.originals.structure import transformer_shapes

# Keys that differ from the full-size model; the others keep their defaults.
DIT = {
    "num_attention_heads": 3,
    "attention_head_dim": 24,
    "num_layers": 1,
    "num_single_layers": 3,
    "num_refiner_layers": 1,
    "rope_axes_dim": [4, 8, 12],
    "text_embed_dim": 48,
    "pooled_projection_dim": 40,
}
VAE = {
    "_class_name": "AutoencoderKLCausal3D",
    "in_channels": 3,
    "out_channels": 3,
    "down_block_types": ["DownEncoderBlockCausal3D"] * 4,
    "up_block_types": ["UpDecoderBlockCausal3D"] * 4,
    "block_out_channels": [6, 12, 12, 18],
    "layers_per_block": 1,
    "act_fn": "silu",
    "latent_channels": 16,
    "norm_num_groups": 6,
    "sample_size": 64,
    "sample_tsize": 16,
    "scaling_factor": 0.61,
    "time_compression_ratio": 4,
    "spatial_compression_ratio": 8,
    "mid_block_add_attention": True,
    "mid_block_causal_attn": True,
}
LLAVA = LlavaConfig(
    text_config=LlamaConfig(
        vocab_size=600,
        hidden_size=48,
        intermediate_size=80,
        num_hidden_layers=5,
        num_attention_heads=6,
        num_key_value_heads=3,
        rope_theta=500000.0,
        rms_norm_eps=1e-5,
    ),
    vision_config=CLIPVisionConfig(
        hidden_size=24,
        intermediate_size=40,
        num_hidden_layers=4,
        num_attention_heads=3,
        image_size=224,
        patch_size=14,
    ),
    image_token_index=554,
    pad_token_id=555,
    vision_feature_layer=-2,
    vision_feature_select_strategy="default",
)
CLIP = CLIPTextConfig(
    vocab_size=670,
    hidden_size=40,
    intermediate_size=64,
    num_hidden_layers=3,
    num_attention_heads=5,
    bos_token_id=0,
    eos_token_id=2,  # what CLIP's configs say, though its tokenizer's is the last of the vocabulary
)


def write_unseen_model(folder: Path, golden: Path) -> None:
    """The original folder; only the tokenizers' vocabularies are those of `golden`."""
    dit, vae = folder / "hunyuancustom_720P", folder / "vae_3d/hyvae_v1_0801"
    for part in (dit, vae):
        part.mkdir(parents=True)
    generator = torch.Generator().manual_seed(7)
    config = FULL_SIZE | DIT
    shapes = original_shapes(transformer_shapes(config), config)
    weights = {key: 0.15 * torch.randn(shape, generator=generator) for key, shape in shapes.items()}
    torch.save({"module": weights}, dit / "mp_rank_00_model_states.pt")
    (dit / "config.json").write_text(json.dumps(DIT))
    network = AutoencoderKLHunyuanVideo(
        block_out_channels=VAE["block_out_channels"], norm_num_groups=6, layers_per_block=1
    )
    state = {f"vae.{key}": value for key, value in _randomised(network, generator, 0.15).items()}
    torch.save({"state_dict": state}, vae / "pytorch_model.pt")
    (vae / "config.json").write_text(json.dumps(VAE))

    def old_llava_name(key: str) -> str:
        return key.replace("vision_tower.", "vision_tower.vision_model.")

    llava = folder / "llava-llama-3-8b-v1_1"
    _write_encoder(LlavaForConditionalGeneration(LLAVA), llava, generator, old_llava_name)
    shutil.copy(golden / "tiny_llava/tokenizer.json", llava)
    settings = json.loads((golden / "tiny_llava/tokenizer_config.json").read_text())
    settings |= {"tokenizer_class": "LlamaTokenizerFast", "add_bos_token": True, "processor_class": "LlavaProcessor"}
    (llava / "tokenizer_config.json").write_text(json.dumps(settings))
    clip = folder / "openai_clip-vit-large-patch14"
    _write_encoder(CLIPTextModel(CLIP), clip, generator, lambda key: f"text_model.{key}")
    for name in ("vocab.json", "merges.txt", "tokenizer_config.json", "special_tokens_map.json"):
        shutil.copy(golden / "tiny_clip" / name, clip)


def _write_encoder(model: Any, folder: Path, generator: torch.Generator, old_name: Callable[[str], str]) -> None:
    """Under the names that transformers 4.41 gave weights, which the pinned one saves otherwise."""
    _randomised(model, generator, 0.15)
    model.save_pretrained(folder)
    stored = folder / "model.safetensors"
    save_file({old_name(key): value for key, value in load_file(stored).items()}, stored, {"format": "pt"})


def _randomised(model: nn.Module, generator: torch.Generator, deviation: float) -> dict[str, Tensor]:
    """Weights drawn anew, scales of norms around one."""
    for parameter in model.parameters():
        parameter.normal_(std=deviation, generator=generator).add_(parameter.ndim == 1)
    return model.state_dict()
