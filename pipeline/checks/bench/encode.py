"""Everything before the first step: both prompts through LLaVA and CLIP, the identity image through the VAE."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from functools import partial
from typing import Any

import numpy as np
import torch
from diffusers import FlowMatchEulerDiscreteScheduler
from transformers import CLIPTextConfig, CLIPTextModel, LlavaConfig, LlavaForConditionalGeneration

from pipeline.checks.bench.stopwatch import Case, Stopwatch
from pipeline.checks.bench.subject import Subject
from pipeline.checks.bench.table import Row
from pipeline.conditioning.encode import Subject as Conditioned
from pipeline.demo.tokenizer import clip_tokenizer, llama_tokenizer
from pipeline.hunyuan_custom import HunyuanCustomPipeline
from pipeline.memory.placement import apply_memory_plan, onloaded
from pipeline.shapes import PixelShape
from weights.convert import SHIFT
from weights.originals.plan_encoders import CLIP, LLAVA

STAGE = "encode"
_OFFLOADED = ", memory_plan = offload_encoders"

_SMALL_LLAVA: dict[str, Any] = {
    "text_config": LLAVA["text_config"] | {"num_hidden_layers": 4, "hidden_size": 256, "intermediate_size": 512},
    "vision_config": LLAVA["vision_config"] | {"num_hidden_layers": 2, "hidden_size": 128, "intermediate_size": 256},
}
_SMALL_CLIP = CLIP | {"num_hidden_layers": 2}


def encode(subject: Subject, size: PixelShape, stopwatch: Stopwatch) -> Iterator[Row]:
    pipe = subject.loaded or _random_pipeline(subject)
    given = Conditioned(
        pixels=np.random.default_rng(0).integers(0, 256, (512, 512, 3), dtype=np.uint8),
        prompt="A woman is playing a violin on a stage, warm light, close up.",
        subject_name="woman",
        negative_prompt="bad quality, distortion, blurring",
        negative_subject_name="person",
        reference=None,
        identity_guidance=False,
    )

    @torch.no_grad()
    def resident() -> None:
        pipe.encode(given, size)

    @torch.no_grad()
    def offloaded() -> None:
        pipe.encode(given, size)
        with onloaded(pipe.transformer):
            pass  # where it would denoise
        pipe.maybe_free_model_hooks()

    cases = [Case("", resident)]
    if subject.device.type != "cpu":
        cases.append(Case(_OFFLOADED, offloaded, partial(one_model_at_a_time, pipe, subject.device)))
    timed_by_name = stopwatch.minima(cases)
    base = timed_by_name[""].seconds
    for name, timed in timed_by_name.items():
        yield Row(
            stage=STAGE,
            what=f"two prompts and the identity image{name}",
            size=f"{size.height}x{size.width}",
            ratio=timed.seconds / base if name and timed.seconds and base else None,
            of="resident" if name else "",
            note="with the transformer moved on and off" if name else "",
            **asdict(timed),
        )


@contextmanager
def one_model_at_a_time(pipe: HunyuanCustomPipeline, device: torch.device) -> Iterator[None]:
    """`offload_encoders` for models that are all on `device`, and are there again afterwards."""
    apply_memory_plan(pipe, "offload_encoders", str(device))
    try:
        yield
    finally:
        pipe.remove_all_hooks()
        for name in pipe.model_cpu_offload_seq.split("->"):
            getattr(pipe, name).to(device)


def _random_pipeline(subject: Subject) -> HunyuanCustomPipeline:
    """Encoders of random weights, with the demo model's tokenizers."""
    tokenizer, tokenizer_2 = llama_tokenizer(), clip_tokenizer()
    special = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": tokenizer.pad_token_id}
    llava = LLAVA if subject.sizes.full else _SMALL_LLAVA
    clip = CLIP if subject.sizes.full else _SMALL_CLIP
    vocabulary = {} if subject.sizes.full else {"vocab_size": len(tokenizer)}
    config = LlavaConfig(
        text_config={"model_type": "llama", **llava["text_config"], **special, **vocabulary},
        vision_config={"model_type": "clip_vision_model", **llava["vision_config"]},
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        pad_token_id=tokenizer.pad_token_id,
        vision_feature_layer=-2,
        vision_feature_select_strategy="default",
    )
    own = {name: getattr(tokenizer_2, name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
    with torch.device(subject.device):  # drawn there: 8 billion values
        text_encoder = LlavaForConditionalGeneration._from_config(config, dtype=subject.dtypes.text_encoders)
        text_encoder_2 = CLIPTextModel._from_config(CLIPTextConfig(**clip, **own), dtype=subject.dtypes.text_encoders)
    return HunyuanCustomPipeline(
        transformer=subject.transformer,
        vae=subject.vae,
        scheduler=FlowMatchEulerDiscreteScheduler(shift=SHIFT),
        text_encoder=text_encoder.eval().requires_grad_(False),
        tokenizer=tokenizer,
        text_encoder_2=text_encoder_2.eval().requires_grad_(False),
        tokenizer_2=tokenizer_2,
    )
