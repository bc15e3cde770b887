"""The reference's tiny models, read from their original layout, and the tensors it computed with them."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler
from PIL import Image
from torch import Tensor
from transformers import AutoTokenizer, CLIPTextModel, CLIPTokenizer, LlavaForConditionalGeneration

from pipeline.hunyuan_custom import HunyuanCustomPipeline
from tests.harness import tiny_pipeline
from tests.harness.golden_runs import identity_photo
from tests.harness.tiny_model import GOLDEN
from tests.harness.tiny_pipeline import golden


@pytest.fixture(autouse=True)
def _same_numbers_in_every_run() -> None:
    """What a test draws without a generator of its own."""
    torch.manual_seed(0)


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _no_grad() -> Iterator[None]:
    with torch.no_grad():
        yield


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
    return tiny_pipeline.tiny_transformer()


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
    return tiny_pipeline.tiny_vae


@pytest.fixture(scope="session")
def tiny_vae() -> Any:
    return tiny_pipeline.tiny_vae()


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
