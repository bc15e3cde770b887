"""The reference's tiny models (tests/golden) as the pipeline drives them, and the tensors it computed with them."""

import json
from typing import Any

from diffusers import AutoencoderKLHunyuanVideo, HunyuanVideoTransformer3DModel
from safetensors.torch import load_file
from torch import Tensor

from tests.harness.tiny_model import DIT_CONFIG, GOLDEN, dit_weights
from weights.originals.key_map import convert_transformer_state_dict, strip_vae_prefix


def golden(name: str) -> dict[str, Tensor]:
    """The tensors of `name`.safetensors."""
    return load_file(GOLDEN / f"{name}.safetensors")


def tiny_transformer() -> HunyuanVideoTransformer3DModel:
    """Hidden 64, 2 heads x 32, 2 double and 2 single blocks."""
    model = HunyuanVideoTransformer3DModel(**DIT_CONFIG)
    model.load_state_dict(convert_transformer_state_dict(dit_weights()), strict=True)
    return model.eval()


def tiny_vae(**tiling: Any) -> AutoencoderKLHunyuanVideo:
    """8, 8, 16, 16 channels; `tiling` overrides keys of the original config that diffusers' class does not know."""
    config = json.loads((GOLDEN / "vae_tiny_config.json").read_text())
    vae = AutoencoderKLHunyuanVideo(
        block_out_channels=config["block_out_channels"],
        layers_per_block=config["layers_per_block"],
        norm_num_groups=config["norm_num_groups"],
    )
    vae.load_state_dict(strip_vae_prefix(golden("vae_tiny_weights")), strict=True)
    own = {key: config[key] for key in ("sample_size", "sample_tsize", "mid_block_causal_attn")}
    vae.register_to_config(**(own | tiling))
    return vae.eval()
