"""The reference's tiny models, read from their original layout, and the tensors it computed with them."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import AutoencoderKLHunyuanVideo, FlowMatchEulerDiscreteScheduler, HunyuanVideoTransformer3DModel
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor
from transformers import AutoTokenizer, CLIPTextModel, CLIPTokenizer, LlavaForConditionalGeneration

from pipeline.hunyuan_custom import HunyuanCustomPipeline
from tests.harness.golden_runs import identity_photo
from weights.originals.key_map import convert_transformer_state_dict, strip_vae_prefix

GOLDEN = Path(__file__).parents[1] / "golden"

TINY_DIT = {
    "num_attention_heads": 2,
    "attention_head_dim": 32,
    "num_layers": 2,
    "num_single_layers": 2,
    "rope_axes_dim": (8, 12, 12),
    "text_embed_dim": 32,
    "pooled_projection_dim": 24,
    "guidance_embeds": False,
}


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _no_grad() -> Iterator[None]:
    with torch.no_grad():
        yield


def golden(name: str) -> dict[str, Tensor]:
    return load_file(GOLDEN / f"{name}.safetensors")


@pytest.fixture(scope="session")
def golden_folder() -> Path:
    return GOLDEN


@pytest.fixture(scope="session")
def dit_io() -> dict[str, Tensor]:
    return golden("dit_tiny_io")


@pytest.fixture(scope="session")
def vae_io() -> dict[str, Tensor]:
    return golden("vae_tiny_io")


@pytest.fixture(scope="session")
def text_io() -> dict[str, Tensor]:
    return golden("text_io")


@pytest.fixture(scope="session")
def pipeline_io() -> dict[str, Tensor]:
    return golden("pipeline_io")


@pytest.fixture(scope="session")
def dit() -> Any:
    return build_tiny_dit()


def build_tiny_dit() -> Any:
    """The reference's tiny transformer."""
    model = HunyuanVideoTransformer3DModel(**TINY_DIT)
    model.load_state_dict(convert_transformer_state_dict(golden("dit_tiny_weights")), strict=True)
    return model.eval()


@pytest.fixture(scope="session")
def text_cases() -> dict[str, Any]:
    return json.loads((GOLDEN / "text_cases.json").read_text())


@pytest.fixture(scope="session")
def llava() -> Any:
    return LlavaForConditionalGeneration.from_pretrained(GOLDEN / "tiny_llava").eval()


@pytest.fixture(scope="session")
def llava_tokenizer() -> Any:
    return AutoTokenizer.from_pretrained(GOLDEN / "tiny_llava")


@pytest.fixture(scope="session")
def clip() -> Any:
    return CLIPTextModel.from_pretrained(GOLDEN / "tiny_clip").eval()


@pytest.fixture(scope="session")
def clip_tokenizer() -> Any:
    return CLIPTokenizer.from_pretrained(GOLDEN / "tiny_clip")


@pytest.fixture(scope="session")
def build_vae() -> Callable[..., Any]:
    return build_tiny_vae


def build_tiny_vae(**tiling: Any) -> Any:
    """The tiny VAE; `tiling` overrides keys of the original config that diffusers' class does not know."""
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


@pytest.fixture(scope="session")
def tiny_vae() -> Any:
    return build_tiny_vae()


@pytest.fixture
def pipe(
    dit: Any, tiny_vae: Any, llava: Any, llava_tokenizer: Any, clip: Any, clip_tokenizer: Any
) -> HunyuanCustomPipeline:
    """The reference's tiny pipeline at shift 13."""
    return HunyuanCustomPipeline(
        transformer=dit,
        vae=tiny_vae,
        scheduler=FlowMatchEulerDiscreteScheduler(shift=13.0),
        text_encoder=llava,
        tokenizer=llava_tokenizer,
        text_encoder_2=clip,
        tokenizer_2=clip_tokenizer,
    )


@pytest.fixture(scope="session")
def identity(text_io: dict[str, Tensor]) -> Image.Image:
    return identity_photo(text_io)
