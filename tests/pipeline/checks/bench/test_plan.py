"""The options of the command, in words."""

from typing import Any

import pytest
from typer.testing import CliRunner

from pipeline.checks.bench.plan import BenchPlan, bench_plan
from pipeline.shapes import PixelShape
from server.cli.main import app


def _plan(**changed: Any) -> BenchPlan:
    words: dict[str, Any] = {
        "device": "cpu",
        "small": None,
        "sizes": None,
        "frames": None,
        "text_rows": "50,625",
        "stages": None,
        "folder": None,
        "repeats": 1,
        "steps": 1,
        "limit_s": 1.0,
    }
    return bench_plan(**(words | changed))


def test_a_cpu_gets_what_one_core_can_do() -> None:
    plan = _plan()
    assert plan.models.transformer["num_attention_heads"] * plan.models.transformer["attention_head_dim"] == 768
    assert plan.sizes == [PixelShape(frames=33, height=128, width=224)]  # 9 latents of 16 x 28
    assert plan.dtype == "float32"


def test_sizes_and_frames_are_combined_from_small_to_large() -> None:
    shapes = _plan(sizes="720p,512p,128x224", frames="129,5").sizes
    assert len(shapes) == 6
    pixels = [shape.height * shape.width * shape.frames for shape in shapes]
    assert pixels == sorted(pixels)
    assert shapes[-1] == PixelShape(frames=129, height=720, width=1280)


def test_stages_keep_their_order() -> None:
    assert _plan(stages="reuse,step").stages == ["step", "reuse"]


@pytest.mark.parametrize(
    ("option", "words"),
    [
        ("--device", "gpu"),
        ("--size", "513p"),
        ("--size", "512x896x3"),
        ("--frames", "81;129"),
        ("--frames", "0"),
        ("--text-rows", "50"),
        ("--stages", "steps"),
    ],
)
def test_words_that_do_not_read_name_their_option(option: str, words: str) -> None:
    told = CliRunner().invoke(app, ["bench", "model", option, words])
    assert told.exit_code == 2
    assert option in told.stderr
