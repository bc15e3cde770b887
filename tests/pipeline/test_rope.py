import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from pipeline.rope import rotary_tables
from pipeline.shapes import TokenGrid

AXES, THETA = (16, 56, 56), 256.0


def _sha256(table: torch.Tensor) -> str:
    return hashlib.sha256(table.contiguous().numpy().tobytes()).hexdigest()


@pytest.mark.parametrize("size", ["129x512x896", "129x720x1280", "129x896x512", "33x320x192", "5x64x96"])
def test_real_tables_are_bit_exact(size: str, golden_folder: Path, close: Any) -> None:
    info = json.loads((golden_folder / "rope_info.json").read_text())[size]
    rows = load_file(golden_folder / "rope_sched.safetensors")
    grid = TokenGrid(*info["grid"])
    cos, sin = rotary_tables(grid, AXES, THETA, text_rows=0)
    assert len(cos) == info["n_tokens"]
    assert grid.per_frame == info["ref_tokens"]
    assert _sha256(cos) == info["cos_sha256_fp32"]
    assert _sha256(sin) == info["sin_sha256_fp32"]
    assert cos.double().sum().item() == pytest.approx(info["cos_sum"], rel=1e-12)
    assert sin.double().sum().item() == pytest.approx(info["sin_sum"], rel=1e-12)
    index = rows[f"rope.{size}.idx"]
    close("RoPE", cos[index], rows[f"rope.{size}.cos"], 0)
    close("RoPE", sin[index], rows[f"rope.{size}.sin"], 0)


def test_a_whole_real_table_is_bit_exact(golden_folder: Path, close: Any) -> None:
    rows = load_file(golden_folder / "rope_sched.safetensors")
    cos, sin = rotary_tables(TokenGrid(2, 4, 6), AXES, THETA, text_rows=0)
    close("RoPE", cos, rows["rope.5x64x96.full_cos"], 0)
    close("RoPE", sin, rows["rope.5x64x96.full_sin"], 0)


def test_tiny_table_is_bit_exact_and_text_does_not_turn(dit_io: dict[str, torch.Tensor], dit: Any, close: Any) -> None:
    config = dit.config
    cos, sin = rotary_tables(TokenGrid(3, 4, 6), config.rope_axes_dim, config.rope_theta, text_rows=5)
    close("RoPE", cos[:-5], dit_io["in.freqs_cos"], 0)
    close("RoPE", sin[:-5], dit_io["in.freqs_sin"], 0)
    assert (cos[-5:] == 1).all()
    assert (sin[-5:] == 0).all()


def test_the_reference_sits_beside_the_video_not_on_it(dit_io: dict[str, torch.Tensor]) -> None:
    assert not torch.equal(dit_io["in.freqs_cos"], dit_io["in.freqs_cos_timecat"])
