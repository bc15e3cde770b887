"""The measurement itself, on a tiny checkpoint: it measures, counts keys and leaves nothing behind."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import HunyuanVideoTransformer3DModel

from weights.bench_convert import bench_convert
from weights.key_map import original_shapes
from weights.plan_transformer import FULL_SIZE
from weights.structure import transformer_shapes
from weights.synthetic import write_converted_transformer, write_original_dit
from weights.torch_checkpoint import list_torch_checkpoint


def test_the_bench_measures_and_cleans_up(tmp_path: Path, dit_config: dict[str, Any]) -> None:
    result = bench_convert(tmp_path, config=dit_config)
    counts = (
        result.original_keys,
        result.mapped_keys,
        result.produced_keys,
        result.missing_keys,
        result.left_over_keys,
    )
    assert counts == (116, 116, 152, 0, 0)
    assert 0 < result.peak_rss_anon < 2e9
    assert result.ratio > 0
    assert any("1.6" in line for line in result.lines())
    assert list(tmp_path.iterdir()) == []


def test_the_synthetic_checkpoint_has_the_originals_keys_and_shapes(
    tmp_path: Path, dit_config: dict[str, Any], dit_weights: dict[str, torch.Tensor]
) -> None:
    write_original_dit(tmp_path / "x.pt", dit_config)
    stored = list_torch_checkpoint(tmp_path / "x.pt")
    assert {key: tensor.shape for key, tensor in stored.items()} == {k: tuple(v.shape) for k, v in dit_weights.items()}
    values = stored["single_blocks.0.linear1.weight"].load()
    assert values.std().item() == pytest.approx(0.02, rel=0.1)


def test_the_synthetic_conversion_loads(tmp_path: Path, dit_config: dict[str, Any]) -> None:
    write_converted_transformer(tmp_path / "transformer", dit_config)
    _, info = HunyuanVideoTransformer3DModel.from_pretrained(tmp_path / "transformer", output_loading_info=True)
    assert not any(info.values())


def test_key_counts_of_the_full_size() -> None:
    converted = transformer_shapes(FULL_SIZE)
    original = original_shapes(converted, FULL_SIZE)
    assert (len(original), len(converted)) == (852, 1260)
    assert original["single_blocks.39.linear1.weight"] == (21504, 3072)
    assert sum(math.prod(shape) for shape in original.values()) == 12_810_782_784
