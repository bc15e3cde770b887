"""What the converter writes is what the pipeline loads, in a folder that knows nothing of the originals."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler
from safetensors.torch import load_file

from pipeline.conditioning.prompt import tokenize
from pipeline.hunyuan_custom import HunyuanCustomPipeline
from pipeline.load import load_pipeline
from tests.harness.command import run_command
from tests.harness.golden_runs import golden_latents, identity_photo
from tests.harness.golden_velocities import golden_velocities
from tests.harness.measured import Close
from weights.checks.verify import verify
from weights.convert import MODEL_INDEX, SHIFT, convert
from weights.originals.layout import Variant


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


def test_an_fp8_conversion_repeats_the_references_forward(
    fp8_original: Path, tmp_path: Path, golden: Path, close: Close
) -> None:
    """Within the noise of bf16, at an output deviation of 1.1."""
    out = convert(fp8_original, tmp_path / "out", variant=Variant.FP8).target
    transformer = load_pipeline(out, device="cpu", dtype="bfloat16").transformer
    with torch.no_grad():
        velocities = golden_velocities(transformer, load_file(golden / "dit_tiny_io.safetensors"))
    expected = load_file(golden / "fp8_io.safetensors")["dit.out_fp8_autocast"].float()
    close("converted folder, fp8 transformer, worst", velocities, expected, 0.06)
    rms = (velocities - expected).square().mean().sqrt()
    close("converted folder, fp8 transformer, rms", rms, torch.zeros(()), 0.015)


TAGS = ["cfg7.5_s10_shift13", "cfg1_s5_shift5", "emptyneg_s5_shift13", "cfg7.5_ip3_s5_shift7"]


@pytest.mark.parametrize("tag", TAGS)
def test_the_converted_folder_repeats_the_references_runs(
    tag: str, converted_once: Path, golden: Path, close: Close
) -> None:
    io, cases = load_file(golden / "pipeline_io.safetensors"), json.loads((golden / "text_cases.json").read_text())
    pipe = HunyuanCustomPipeline.from_pretrained(converted_once)
    identity = identity_photo(load_file(golden / "text_io.safetensors"))
    latents = golden_latents(tag, pipe, io=io, cases=cases, identity=identity)
    close("converted folder, latents", latents, io[f"{tag}.final_latents"], 1e-4)
    expected = io[f"{tag}.video"]
    video: Any = pipe.decode(latents, "pt", None)
    close("converted folder, video", video.transpose(1, 2), expected, 1e-4 if expected.dtype == torch.float32 else 5e-4)


@pytest.mark.parametrize("tokenizer_class", ["LlamaTokenizerFast", "LlamaTokenizer", "PreTrainedTokenizerFast"])
@pytest.mark.parametrize("extra", [{}, {"add_bos_token": True, "add_eos_token": False, "legacy": False}])
def test_whatever_class_a_tokenizer_was_saved_as_it_reads_the_same(
    tokenizer_class: str, extra: dict[str, bool], original: Path, tmp_path: Path, golden: Path, close: Close
) -> None:
    """transformers 5 would rebuild those two with other ids."""
    path = original / "models/llava-llama-3-8b-v1_1/tokenizer_config.json"
    settings = {"tokenizer_class": tokenizer_class, "processor_class": "LlavaProcessor"} | extra
    path.write_text(json.dumps(json.loads(path.read_text()) | settings))
    tokenizer = HunyuanCustomPipeline.from_pretrained(convert(original, tmp_path / "out").target).tokenizer
    io, case = load_file(golden / "text_io.safetensors"), json.loads((golden / "text_cases.json").read_text())["gradio"]
    tokens = tokenize(tokenizer, case["prompt"], case["name"], image_token_id=554)
    expected = io["gradio.pos.input_ids"][:, : len(tokens.ids)]
    close("token ids, converted tokenizer", torch.tensor([tokens.ids]), expected, 0)
    assert int(io["gradio.pos.tok_mask"].sum()) == len(tokens.ids)


def test_a_scale_per_row_is_converted_verified_and_loaded(fp8_original: Path, tmp_path: Path) -> None:
    path = fp8_original / "models/hunyuancustom_720P/mp_rank_00_model_states_fp8_map.pt"
    scales = torch.load(path, weights_only=True)["module"]
    per_row = torch.rand(192, 1) + 0.5
    torch.save({"module": scales | {"double_blocks.0.img_attn_qkv": per_row}}, path)
    out = convert(fp8_original, tmp_path / "out", variant=Variant.FP8).target
    assert verify(out) == []
    linear = load_pipeline(out, device="cpu", dtype="float32").transformer.transformer_blocks[0].attn.to_v
    assert torch.equal(linear.weight_scale, per_row[128:])


def test_loading_is_measured_in_a_process_of_its_own(converted_once: Path, tmp_path: Path) -> None:
    told = run_command("bench", "load", str(converted_once))
    assert told.code == 0, told.err
    assert re.search(r"loaded in +\d+\.\d s", told.out)
    assert re.search(r"peak RssAnon +[0-9.]+ GB", told.out)
    refused = run_command("bench", "load", str(tmp_path))
    assert refused.code == 1
    assert refused.err.startswith(f"error: {tmp_path}: no model here")
