"""What the converter writes is what the pipeline loads, in a folder that knows nothing of the originals."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from diffusers import FlowMatchEulerDiscreteScheduler

from pipeline.hunyuan_custom import HunyuanCustomPipeline
from pipeline.load import load_pipeline
from pipeline.prompt import TEMPLATE
from weights.convert import MODEL_INDEX, SHIFT, convert
from weights.original_layout import Variant
from weights.tokenizer_check import PREFIX
from weights.verify import verify


def test_from_pretrained_loads_the_conversion(original: Path, tmp_path: Path) -> None:
    out = convert(original, tmp_path / "out").target
    pipe = HunyuanCustomPipeline.from_pretrained(out)
    assert pipe.scheduler.config["shift"] == SHIFT
    assert isinstance(pipe.scheduler, FlowMatchEulerDiscreteScheduler)
    pipe.save_pretrained(tmp_path / "saved")
    saved = json.loads((tmp_path / "saved/model_index.json").read_text())
    components = {name: value for name, value in saved.items() if isinstance(value, list)}
    assert components.keys() == {name for name, value in MODEL_INDEX.items() if isinstance(value, list)}


def test_the_template_checked_here_is_the_one_the_pipeline_uses() -> None:
    assert PREFIX == TEMPLATE


def test_an_fp8_conversion_loads_with_its_scales(fp8_original: Path, tmp_path: Path) -> None:
    out = convert(fp8_original, tmp_path / "out", variant=Variant.FP8).target
    pipe = load_pipeline(out, device="cpu", dtype="bfloat16")
    linear = pipe.transformer.transformer_blocks[1].attn.to_k
    assert linear.weight.dtype == torch.float8_e4m3fn
    assert linear.weight_scale.shape == (1,)
    assert verify(out) == []
