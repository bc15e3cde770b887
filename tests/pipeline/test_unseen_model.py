"""A model no golden tensor is from, out of its original folder to frames, against code that shares none with ours.

Tokens come from the tokenizer files alone, hidden states from the merge of transformers 4.41, velocities from
diffusers' masked forward, pixels from its tiled VAE.
"""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import AutoencoderKLHunyuanVideo, HunyuanVideoTransformer3DModel
from PIL import Image
from tokenizers import Tokenizer
from torch import Tensor
from transformers import CLIPTextModel, LlavaForConditionalGeneration
from typer.testing import CliRunner

from pipeline.conditioning.identity_image import llava_view, rgb_pixels, vae_view, white_pixels
from pipeline.hunyuan_custom import HunyuanCustomPipeline
from server.cli.main import app
from tests.harness.masked_sampler import Row, masked_sampler
from tests.harness.merged_llava import merged_states
from tests.harness.slow_clip import slow_clip_ids
from tests.harness.unseen_model import write_unseen_model

CROP = 95
PROMPT = (
    "A fisherman mends his net, 海风吹动他的围巾。 Он смеётся; naïve gulls circle the pier. " * 2
    + "한국의 저녁 " * 3
    + "slowly, slowly"
)
NEGATIVE = "模糊, blurring, low quality, ИСКАЖЕНИЕ"
SIZE = {"height": 96, "width": 64, "num_frames": 21}
STEPS, GUIDANCE, SHIFT = 6, 5.5, 13.0


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The original and what the command made of it."""
    root = tmp_path_factory.mktemp("unseen")
    original, converted = root / "original", root / "converted"
    with torch.no_grad():
        write_unseen_model(original, Path(__file__).parents[1] / "golden")
    done = CliRunner().invoke(app, ["weights", "convert", str(original), str(converted)])
    assert done.exit_code == 0, done.output
    return original, converted


@pytest.fixture(scope="module")
def portrait() -> Image.Image:
    pixels = torch.randint(0, 256, (45, 31, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    return Image.fromarray(pixels.numpy())


def test_latents_and_frames(folders: tuple[Path, Path], portrait: Image.Image, golden_folder: Path, close: Any) -> None:
    original, converted = folders
    pipe = HunyuanCustomPipeline.from_pretrained(converted)
    noise = torch.randn(1, 16, 6, 12, 8, generator=torch.Generator().manual_seed(2))
    call = SIZE | {"num_inference_steps": STEPS, "guidance_scale": GUIDANCE, "subject_name": "old man"}
    latents = pipe(PROMPT, portrait, negative_prompt=NEGATIVE, latents=noise, output_type="latent", **call).frames

    vae = _tiled_vae(converted)
    scale = json.loads((original / "vae_3d/hyvae_v1_0801/config.json").read_text())["scaling_factor"]
    pixels = rgb_pixels(portrait, alpha="white")
    reference = vae.encode(vae_view(pixels, SIZE["height"], SIZE["width"])).latent_dist.mode() * scale
    rows = [
        _row(folders, golden_folder, NEGATIVE, "person", white_pixels(), reference, negative=True),
        _row(folders, golden_folder, PROMPT, "old man", pixels, reference, negative=False),
    ]
    model = HunyuanVideoTransformer3DModel.from_pretrained(converted / "transformer")
    expected = masked_sampler(model, noise, rows, steps=STEPS, shift=SHIFT, guidance=GUIDANCE)
    assert expected.std() > 2  # tolerances mean something
    close("unseen model, latents", latents, expected, 2e-4)
    frames = (vae.decode(expected / scale).sample / 2 + 0.5).clamp(0, 1)
    video: Any = pipe.decode(latents, "pt", None)
    close("unseen model, frames", video.transpose(1, 2), frames, 2e-4)


def _tiled_vae(converted: Path) -> Any:
    """diffusers' class with the tiles the original config names."""
    vae = AutoencoderKLHunyuanVideo.from_pretrained(converted / "vae")
    vae.enable_tiling(64, 64, 16, 48, 48, 12)
    return vae


def _row(
    folders: tuple[Path, Path], golden: Path, prompt: str, name: str, pixels: Any, reference: Tensor, *, negative: bool
) -> Row:
    original, _ = folders
    example = json.loads((golden / "text_cases.json").read_text())["text_example"]
    template = example[: example.index("Realistic")]
    tokenizer = Tokenizer.from_file(str(original / "llava-llama-3-8b-v1_1/tokenizer.json"))
    ids = tokenizer.encode(f"{template}{prompt}<|eot_id|>\nThe {name} looks like<image>").ids
    assert len(tokenizer.encode(template).ids) == CROP
    room = CROP + 256 - len(ids)
    assert negative or 0 <= room < 6, f"the prompt shall fill the window, {room} tokens are left"
    llava = LlavaForConditionalGeneration.from_pretrained(original / "llava-llama-3-8b-v1_1").eval()
    states, mask = merged_states(llava, ids, CROP, llava_view(pixels, 224))
    if negative:  # text and the first image token, at the front
        mask = (torch.arange(mask.shape[1]) < len(ids) - CROP).long()[None]
    clip_folder = original / "openai_clip-vit-large-patch14"
    clip = CLIPTextModel.from_pretrained(clip_folder).eval()
    pooled = clip(torch.tensor([slow_clip_ids(clip_folder, prompt)])).pooler_output
    return Row(states=states, mask=mask, pooled=pooled, reference=reference)
