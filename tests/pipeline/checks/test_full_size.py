"""The check itself, on tiny sizes: it reads every weight, notices one that is not, and leaves nothing behind."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pipeline.checks import full_size as module
from pipeline.checks.full_size import SCRATCH, full_size_check, one_forward
from tests.harness.command import run_command
from weights.checks.synthetic import write_converted_transformer
from weights.originals.plan_transformer import FULL_SIZE

TINY = {
    **FULL_SIZE,
    "num_attention_heads": 2,
    "attention_head_dim": 32,
    "num_layers": 1,
    "num_single_layers": 2,
    "rope_axes_dim": [8, 12, 12],
    "text_embed_dim": 32,
    "pooled_projection_dim": 24,
}


def test_every_weight_is_read_and_the_folder_is_left_clean(tmp_path: Path) -> None:
    (tmp_path / SCRATCH / "left by a killed run").mkdir(parents=True)
    lines: list[str] = []
    result = full_size_check(tmp_path, config=TINY, say=lines.append)
    assert result.passed
    assert result.tokens <= 64
    assert result.forward.tensors > 100
    assert list(tmp_path.iterdir()) == []
    assert lines
    assert result.lines()[-1] == "passed"
    assert replace(result, forward=replace(result.forward, unread=("proj_out.weight",))).lines()[-1] == "FAILED"
    counted = replace(result, counted=True)
    assert replace(counted, forward=replace(result.forward, read_bytes=result.nbytes)).passed
    assert not replace(counted, forward=replace(result.forward, read_bytes=result.nbytes - 1)).passed
    assert not replace(result, peak_rss_anon=13 * 10**9).passed


def test_a_weight_that_nothing_uses_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_converted_transformer(tmp_path / "transformer", TINY)
    one_step = module._one_step

    def without_the_first_block(transformer: Any, kernels: Any) -> Any:
        del transformer.single_transformer_blocks[0]
        return one_step(transformer, kernels)

    monkeypatch.setattr(module, "_one_step", without_the_first_block)
    unread = one_forward(tmp_path / "transformer").unread
    assert "single_transformer_blocks.0.proj_out.weight" in unread
    assert all(name.startswith("single_transformer_blocks.0.") for name in unread)


def test_a_place_that_cannot_be_written_is_one_line() -> None:
    told = run_command("doctor", "--full-size", "--directory", "/proc")
    assert (told.code, told.out) == (1, "")
    assert told.err.startswith("error: /proc/")
    assert told.err.count("\n") == 1
