"""The check itself, on tiny sizes: it reads every weight, notices one that is not, and leaves nothing behind."""

from dataclasses import replace
from pathlib import Path

from pipeline.full_size_check import full_size_check
from weights.plan_transformer import FULL_SIZE

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
    lines: list[str] = []
    result = full_size_check(tmp_path, config=TINY, say=lines.append)
    assert result.passed
    assert result.tokens <= 64
    assert result.tensors > 100
    assert list(tmp_path.iterdir()) == []
    assert lines
    assert result.lines()[-1] == "passed"
    assert replace(result, unread=("proj_out.weight",)).lines()[-1] == "FAILED"
    assert not replace(result, peak_rss_anon=13 * 10**9).passed
