"""Every tensor and fact in tests/golden is compared by some test, or is listed here with the reason why not."""

import json
from fnmatch import fnmatchcase
from pathlib import Path

import pytest
from safetensors import safe_open

FOLDER = Path(__file__).parent

# file -> the test file of this folder that reads them -> keys, or patterns of keys
COMPARED: dict[str, dict[str, list[str]]] = {
    "dit_tiny_io.safetensors": {
        "test_transformer.py": [
            "in.x",
            "in.t",
            "in.ref_latents",
            "in.text_mask",
            "in.text_states",
            "in.text_states_2",
            "in.cache.x",
            "in.cache.t",
            "in.ip.uncond_ref",
            "mid.img_in_x",
            "mid.img_in_ref",
            "mid.vec",
            "mid.txt_in_context",
            "mid.txt_in_block0",
            "mid.txt_in",
            "mid.double*.img",
            "mid.double*.txt",
            "mid.single*.x",
            "mid.cache_out",
            "out.x_row*_alone",
            "out.x_cfg_batch",
            "out.x_cached_step",
            "out.x_ipcfg_batch3",
        ],
        "test_rope.py": ["in.freqs_cos", "in.freqs_sin", "in.freqs_cos_timecat"],
    },
    "fp8_io.safetensors": {
        "memory/test_fp8.py": [
            "lin.weight_fp32",
            "lin.scale_fp32",
            "lin.scale_bf16",
            "lin.bias_bf16",
            "lin.weight_fp8_as_u8",
            "lin.weight_direct_cast_u8",
            "lin.weight_dequant_bf16",
            "lin.in_bf16",
            "lin.out_bf16",
            "dit.out_fp8_autocast",
            "dit.out_bf16_autocast",
            "w8.*",
            "map.*",
        ],
    },
    "images_io.safetensors": {
        "conditioning/test_identity_image.py": ["*.ref_u8.*", "*.llava_u8", "uncond_pixel_value_llava_corner"],
    },
    "pipeline_io.safetensors": {
        "test_hunyuan_custom.py": [
            "in.ref_u8",
            "in.ref_latents",
            "in.ref_latents_mode",
            "in.uncond_ref_latents",
            "in.initial_noise_seed1024",
            "*.final_latents",
            "*.latents_per_step",
            "*.model_out_per_step",
            "*.video",
            "*.video_u8",
        ],
        "test_step_cache.py": ["*.is_cache"],
    },
    "rope_sched.safetensors": {
        "test_rope.py": ["rope.*.idx", "rope.*.cos", "rope.*.sin", "rope.5x64x96.full_cos", "rope.5x64x96.full_sin"],
        "test_denoise.py": [
            "sched.*.*.sigmas",
            "sched.*.*.timesteps",
            "step.in.sample_fp16",
            "step.in.model_bf16",
            "step.out.sample1",
            "step.out.sample2",
        ],
    },
    "text_io.safetensors": {
        "../harness/golden_runs.py": ["in.image_u8_28"],
        "conditioning/test_encoders.py": [
            "image_features",
            "*.pos.hidden",
            "*.neg.hidden",
            "*.pos.mask",
            "*.neg.mask_before_fix",
            "*.clip.pos_ids",
            "*.clip.pos_mask",
            "*.clip.*_pooled",
        ],
        "conditioning/test_prompt.py": ["*.input_ids", "*.tok_mask"],
        "test_guidance.py": ["*.mask_cfg_batch"],
    },
    "vae_tiny_io.safetensors": {
        "vae/test_codec.py": [
            "in.*_u8",
            "in.*",
            "in.real_*",
            "causal.*.moments",
            "full.*.moments",
            "real.*.moments",
            "causal.*.decoded",
            "full.*.decoded",
            "real.*.decoded",
        ],
    },
    "rope_info.json": {
        "test_rope.py": [
            "*.grid",
            "*.n_tokens",
            "*.ref_tokens",
            "*.cos_sum",
            "*.sin_sum",
            "*.cos_sha256_fp32",
            "*.sin_sha256_fp32",
        ],
    },
}
# Loaded whole and strictly by every test that builds the model.
WEIGHTS = {"dit_tiny_weights.safetensors", "vae_tiny_weights.safetensors"}
NOT_OURS = {
    "sched.10.7.noreverse.*": "the reference's flag for sampling backwards, which its scripts never set",
}


def _keys(golden: Path, name: str) -> list[str]:
    if name.endswith(".json"):
        content = json.loads((golden / name).read_text())
        return [f"{size}.{fact}" for size, facts in content.items() for fact in facts]
    with safe_open(golden / name, framework="pt") as file:
        return list(file.keys())


def test_every_file_is_listed(golden_folder: Path) -> None:
    present = {path.name for path in golden_folder.glob("*.safetensors")}
    assert present - WEIGHTS == {name for name in COMPARED if name.endswith(".safetensors")}


@pytest.mark.parametrize("name", COMPARED)
def test_every_key_has_its_test(name: str, golden_folder: Path) -> None:
    keys = _keys(golden_folder, name)
    patterns = [pattern for group in COMPARED[name].values() for pattern in group]
    assert [key for key in keys if not any(fnmatchcase(key, pattern) for pattern in [*patterns, *NOT_OURS])] == []
    assert [pattern for pattern in patterns if not any(fnmatchcase(key, pattern) for key in keys)] == []


@pytest.mark.parametrize("name", COMPARED)
def test_the_named_test_mentions_the_key(name: str) -> None:
    """Word by word: `mid.double*.img` stands in the code as `mid.double{index}.img`."""
    for file, patterns in COMPARED[name].items():
        source = (FOLDER / file).read_text()
        for pattern in patterns:
            for word in pattern.split("*"):
                assert word.strip(".") in source, f"{file} does not mention {pattern}"
