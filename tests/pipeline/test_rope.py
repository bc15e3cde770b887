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
def test_real_tables_are_bit_exact(size: str, golden_folder: Path) -> None:
    info = json.loads((golden_folder / "rope_info.json").read_text())[size]
    rows = load_file(golden_folder / "rope_sched.safetensors")
    cos, sin = rotary_tables(TokenGrid(*info["grid"]), AXES, THETA, text_rows=0)
    assert len(cos) == info["n_tokens"]
    assert _sha256(cos) == info["cos_sha256_fp32"]
    assert _sha256(sin) == info["sin_sha256_fp32"]
    index = rows[f"rope.{size}.idx"]
    assert torch.equal(cos[index], rows[f"rope.{size}.cos"])
    assert torch.equal(sin[index], rows[f"rope.{size}.sin"])


def test_tiny_table_is_bit_exact_and_text_does_not_turn(dit_io: dict[str, torch.Tensor], dit: Any) -> None:
    config = dit.config
    cos, sin = rotary_tables(TokenGrid(3, 4, 6), config.rope_axes_dim, config.rope_theta, text_rows=5)
    assert torch.equal(cos[:-5], dit_io["in.freqs_cos"])
    assert torch.equal(sin[:-5], dit_io["in.freqs_sin"])
    assert (cos[-5:] == 1).all()
    assert (sin[-5:] == 0).all()


def test_the_reference_sits_beside_the_video_not_on_it(dit_io: dict[str, torch.Tensor]) -> None:
    assert not torch.equal(dit_io["in.freqs_cos"], dit_io["in.freqs_cos_timecat"])
