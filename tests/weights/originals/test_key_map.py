"""The key table: complete, one to one, exact; unknown keys are refused."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from diffusers import HunyuanVideoTransformer3DModel
from torch import Tensor

from weights.errors import KeyMapError, WrongModelError
from weights.originals.key_map import (
    DitSizes,
    convert_scale_map,
    convert_transformer_state_dict,
    pieces_of,
    strip_vae_prefix,
)

SIZES = DitSizes(hidden=8, mlp=32)
CONFIG = {"num_attention_heads": 2, "attention_head_dim": 4, "mlp_ratio": 4.0}


def numbered_rows(rows: int) -> Tensor:
    return torch.arange(rows)[:, None].expand(rows, 3).contiguous()


def test_every_key_of_the_tiny_checkpoint_loads_strictly(
    dit_weights: dict[str, Tensor], dit_config: dict[str, Any]
) -> None:
    converted = convert_transformer_state_dict(dit_weights, config=dit_config)
    with torch.device("meta"):
        model = HunyuanVideoTransformer3DModel.from_config(dit_config)
    model.load_state_dict(converted, strict=True, assign=True)
    assert (len(dit_weights), len(converted)) == (116, 152)
    assert sum(t.numel() for t in converted.values()) == sum(t.numel() for t in dit_weights.values())


def test_sizes_are_read_off_the_tensors_when_no_config_is_given(
    dit_weights: dict[str, Tensor], dit_config: dict[str, Any]
) -> None:
    bare, told = (
        convert_transformer_state_dict(dit_weights),
        convert_transformer_state_dict(dit_weights, config=dit_config),
    )
    assert all(torch.equal(bare[key], told[key]) for key in told)


def test_qkv_is_split_from_the_first_row_down() -> None:
    converted = convert_transformer_state_dict(
        {"double_blocks.11.txt_attn_qkv.weight": numbered_rows(24)}, config=CONFIG
    )
    firsts = {name: tensor[0, 0].item() for name, tensor in converted.items()}
    assert firsts == {f"transformer_blocks.11.attn.add_{x}_proj.weight": 8 * i for i, x in enumerate("qkv")}


def test_linear1_is_split_into_q_k_v_and_mlp_by_the_configs_sizes() -> None:
    converted = convert_transformer_state_dict({"single_blocks.3.linear1.bias": torch.arange(56)}, config=CONFIG)
    assert converted["single_transformer_blocks.3.attn.to_v.bias"].tolist() == list(range(16, 24))
    assert converted["single_transformer_blocks.3.proj_mlp.bias"].tolist() == list(range(24, 56))


def test_halves_of_the_final_modulation_are_swapped() -> None:
    converted = convert_transformer_state_dict({"final_layer.adaLN_modulation.1.bias": torch.arange(16)}, config=CONFIG)
    assert converted == {"norm_out.linear.bias": pytest.approx(converted["norm_out.linear.bias"])}
    assert converted["norm_out.linear.bias"].tolist() == [*range(8, 16), *range(8)]


@pytest.mark.parametrize(
    ("key", "model"),
    [
        ("guidance_in.mlp.0.weight", "guidance embedding"),
        ("audio_proj.proj1.weight", "audio variant"),
        ("audio_models.0.norm1.weight", "audio variant"),
        ("bg_in.proj.weight", "editing variant"),
        ("byt5_in.fc1.weight", "HunyuanVideo 1.5"),
    ],
)
def test_a_sibling_model_is_named(key: str, model: str) -> None:
    with pytest.raises(WrongModelError, match=model) as caught:
        pieces_of(key, 8, SIZES)
    assert key in str(caught.value)


@pytest.mark.parametrize(
    "key", ["img_in.proj.gamma", "blocks.0.attn.weight", "double_blocks.x.img_mlp.fc1.weight", "w"]
)
def test_a_strange_key_is_refused(key: str) -> None:
    with pytest.raises(KeyMapError, match="not a key of"):
        pieces_of(key, 8, SIZES)


def test_rows_that_do_not_add_up_are_refused() -> None:
    for key in ("double_blocks.0.img_attn_qkv.weight", "single_blocks.0.linear1.weight"):
        with pytest.raises(KeyMapError, match="25 rows"):
            pieces_of(key, 25, SIZES)


def test_a_scale_is_copied_to_every_part_of_a_split_layer() -> None:
    module = "single_blocks.0.linear1"
    converted = convert_scale_map({module: torch.tensor(0.5)}, [module], sizes=SIZES)
    parts = ["attn.to_q", "attn.to_k", "attn.to_v", "proj_mlp"]
    assert set(converted) == {f"single_transformer_blocks.0.{part}.weight_scale" for part in parts}
    assert all(scale.shape == (1,) and scale.item() == 0.5 for scale in converted.values())


def test_a_scale_per_row_is_split_with_the_rows() -> None:
    module = "double_blocks.0.img_attn_qkv"
    converted = convert_scale_map({module: torch.arange(24.0)[:, None]}, [module], sizes=SIZES)
    assert converted["transformer_blocks.0.attn.to_k.weight_scale"].flatten().tolist() == list(range(8, 16))


def test_scales_and_layers_must_match_one_to_one() -> None:
    with pytest.raises(KeyMapError, match="no scale"):
        convert_scale_map({}, ["single_blocks.0.linear2"], sizes=SIZES)
    with pytest.raises(KeyMapError, match="without an fp8 layer"):
        convert_scale_map({"single_blocks.0.linear2": torch.ones(1)}, [], sizes=SIZES)


def test_vae_keys_lose_their_prefix_and_training_leftovers() -> None:
    one = torch.ones(1)
    assert set(strip_vae_prefix({"vae.a.weight": one, "b.weight": one, "loss.c": one})) == {"a.weight", "b.weight"}
