"""What the converter writes is what the pipeline loads, in a folder that knows nothing of the originals."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from diffusers import FlowMatchEulerDiscreteScheduler
from PIL import Image
from safetensors.torch import load_file

from pipeline.hunyuan_custom import HunyuanCustomPipeline
from pipeline.load import load_pipeline
from weights.convert import MODEL_INDEX, SHIFT, convert
from weights.original_layout import Variant
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


def test_an_fp8_conversion_loads_with_its_scales(fp8_original: Path, tmp_path: Path) -> None:
    out = convert(fp8_original, tmp_path / "out", variant=Variant.FP8).target
    pipe = load_pipeline(out, device="cpu", dtype="bfloat16")
    linear = pipe.transformer.transformer_blocks[1].attn.to_k
    assert linear.weight.dtype == torch.float8_e4m3fn
    assert linear.weight_scale.shape == (1,)
    assert verify(out) == []


def test_the_converted_folder_repeats_the_references_run(original: Path, tmp_path: Path, golden: Path) -> None:
    io = load_file(golden / "pipeline_io.safetensors")
    case = json.loads((golden / "text_cases.json").read_text())["woman"]
    pipe = HunyuanCustomPipeline.from_pretrained(convert(original, tmp_path / "out").target)
    small = load_file(golden / "text_io.safetensors")["in.image_u8_28"][0].permute(1, 2, 0)
    face = small.repeat_interleave(12, 0).repeat_interleave(12, 1)  # 336x336, what the reference gave LLaVA
    tag = "cfg7.5_s10_shift13"
    frames = pipe(
        case["prompt"],
        Image.fromarray(face.numpy()),
        negative_prompt=case["negative"],
        subject_name=case["name"],
        height=64,
        width=96,
        num_frames=9,
        num_inference_steps=10,
        latents=io["in.initial_noise_seed1024"],
        ref_latents=io["in.ref_latents"],
        output_type="pt",
    ).frames
    assert (frames.transpose(1, 2) - io[f"{tag}.video"]).abs().max() < 1e-4


def test_a_scale_per_row_is_converted_verified_and_loaded(fp8_original: Path, tmp_path: Path) -> None:
    path = fp8_original / "models/hunyuancustom_720P/mp_rank_00_model_states_fp8_map.pt"
    scales = torch.load(path, weights_only=True)["module"]
    per_row = torch.rand(192, 1) + 0.5
    torch.save({"module": scales | {"double_blocks.0.img_attn_qkv": per_row}}, path)
    out = convert(fp8_original, tmp_path / "out", variant=Variant.FP8).target
    assert verify(out) == []
    linear = load_pipeline(out, device="cpu", dtype="float32").transformer.transformer_blocks[0].attn.to_v
    assert torch.equal(linear.weight_scale, per_row[128:])
