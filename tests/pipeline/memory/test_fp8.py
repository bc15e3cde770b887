import copy
from typing import Any

import pytest
import torch
from diffusers import HunyuanVideoTransformer3DModel
from torch import Tensor, nn
from torch.nn import functional as F

from pipeline.memory.fp8 import Fp8Linear, load_fp8_state_dict
from pipeline.transformer import compute_dtype
from tests.harness.golden_velocities import golden_velocities
from weights.originals.key_map import DitSizes, convert_scale_map, convert_transformer_state_dict

FP8 = torch.float8_e4m3fn
TOLERANCE, RMS_TOLERANCE = 0.06, 0.015  # bf16 noise at an output std of 1.1


@pytest.fixture(scope="module")
def fp8_io(golden_folder: Any) -> dict[str, Tensor]:
    from safetensors.torch import load_file

    return load_file(golden_folder / "fp8_io.safetensors")


def test_linear_is_bit_exact(fp8_io: dict[str, Tensor], close: Any) -> None:
    weight = fp8_io["lin.weight_fp8_as_u8"].view(FP8)
    layer = Fp8Linear(weight, fp8_io["lin.scale_fp32"], fp8_io["lin.bias_bf16"])
    close("fp8 linear", layer.weight_scale.bfloat16(), fp8_io["lin.scale_bf16"], 0)
    dequantised = weight.bfloat16() * layer.weight_scale.bfloat16()
    close("fp8 linear", dequantised, fp8_io["lin.weight_dequant_bf16"], 0)
    close("fp8 linear", layer(fp8_io["lin.in_bf16"]), fp8_io["lin.out_bf16"], 0)


def test_a_weight_stored_wide_is_rounded_as_the_reference_rounds(fp8_io: dict[str, Tensor], close: Any) -> None:
    """Its quantiser and a plain cast agree; the scale spans the largest weight."""
    weight, scale = fp8_io["lin.weight_fp32"], fp8_io["lin.scale_fp32"]
    assert torch.equal(weight.abs().max().reshape(1) / 448, scale)
    model = nn.Sequential(nn.Linear(64, 48))
    state = {"0.weight": weight / scale, "0.weight_scale": scale, "0.bias": fp8_io["lin.bias_bf16"]}
    load_fp8_state_dict(model, state)
    stored = model[0].weight.view(torch.uint8)
    for name in ("lin.weight_fp8_as_u8", "lin.weight_direct_cast_u8"):
        close("fp8 rounding", stored, fp8_io[name], 0, unit="codes")
    close("fp8 linear", model(fp8_io["lin.in_bf16"]), fp8_io["lin.out_bf16"], 0)


def test_a_scale_per_row_broadcasts() -> None:
    weight = torch.randn(6, 4).to(FP8)
    scale = torch.rand(6, 1)
    x = torch.randn(3, 4)
    assert torch.equal(Fp8Linear(weight, scale, None)(x), F.linear(x, weight.float() * scale))


def _within_noise(piece: str, actual: Tensor, expected: Tensor, close: Any) -> None:
    close(f"{piece}, worst", actual, expected.float(), TOLERANCE)
    rms = (actual - expected.float()).square().mean().sqrt()
    close(f"{piece}, rms", rms, torch.zeros(()), RMS_TOLERANCE)


def test_bf16_is_within_its_noise(dit: Any, dit_io: dict[str, Tensor], fp8_io: dict[str, Tensor], close: Any) -> None:
    narrow = copy.deepcopy(dit).bfloat16()
    _within_noise("bf16 transformer", golden_velocities(narrow, dit_io), fp8_io["dit.out_bf16_autocast"], close)


def test_fp8_is_within_bf16_noise(
    dit: Any, dit_io: dict[str, Tensor], fp8_io: dict[str, Tensor], golden_folder: Any, close: Any
) -> None:
    from safetensors.torch import load_file

    original = {
        key: tensor.bfloat16() for key, tensor in load_file(golden_folder / "dit_tiny_weights.safetensors").items()
    }
    scales = {key.removeprefix("map."): tensor for key, tensor in fp8_io.items() if key.startswith("map.")}
    for key, tensor in fp8_io.items():
        if key.startswith("w8."):  # stored wider than fp8 here: casting to it loses nothing and is up to the loader
            original[key.removeprefix("w8.")] = tensor.view(FP8).bfloat16()
    state = convert_transformer_state_dict(original)
    sizes = DitSizes.from_config(dit.config)
    state |= convert_scale_map(scales, [f"{name}" for name in scales], sizes=sizes)
    with torch.device("meta"):
        model = HunyuanVideoTransformer3DModel.from_config(dit.config)
    load_fp8_state_dict(model, state)
    assert sum(isinstance(module, Fp8Linear) for module in model.modules()) == 2 * 14 + 2 * 6
    assert model.transformer_blocks[0].attn.to_q.weight.dtype == FP8
    assert compute_dtype(model) == torch.bfloat16
    _within_noise("fp8 transformer", golden_velocities(model, dit_io), fp8_io["dit.out_fp8_autocast"], close)


def test_a_missing_weight_is_refused(dit: Any) -> None:
    state = dit.state_dict()
    del state["proj_out.bias"]
    with torch.device("meta"):
        model = HunyuanVideoTransformer3DModel.from_config(dit.config)
    with pytest.raises(RuntimeError, match=r"proj_out\.bias"):
        load_fp8_state_dict(model, state)
