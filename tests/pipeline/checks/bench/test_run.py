"""Every stage on a tiny model: which rows there are, and what they must agree with."""

import json
import re
from collections.abc import Sequence
from dataclasses import fields
from html import unescape
from pathlib import Path
from xml.dom import minidom

import pytest

from pipeline.checks.bench.plan import STAGES
from pipeline.checks.bench.run import ModelBench, bench_model
from pipeline.checks.bench.stopwatch import OUT_OF_TIME
from pipeline.checks.bench.table import Row, as_lines
from tests.harness.tiny_bench import tiny_plan


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("bench") / "model.json"


@pytest.fixture(scope="module")
def measured(file: Path) -> ModelBench:
    return bench_model(tiny_plan(), json_file=file)


def test_every_stage_has_its_rows_and_none_failed(measured: ModelBench) -> None:
    assert not [row for row in measured.rows if row.error and not row.what.startswith("attention = ")]
    assert list(dict.fromkeys(row.stage for row in measured.rows)) == list(STAGES)
    named = {(row.stage, row.what) for row in measured.rows}
    assert named >= {
        ("ceilings", "matrix product"),
        ("ceilings", "copy, read and written"),
        ("ceilings", "attention: sdpa"),
        ("step", "step of two branches"),
        ("step", "bare operations of the step"),
        ("step", "step of diffusers' class"),
        ("step", "one branch"),
        ("step", "preview: what the loop and the device do"),
        ("step", "preview: its thread encodes"),
        ("shares", "attention"),
        ("shares", "matrix products"),
        ("options", "defaults"),
        ("options", "mlp_chunk = 1/8 of the tokens"),
        ("options", "cpu_linear = onednn"),
        ("options", "attention = sdpa"),
        ("decode", "one tile"),
        ("decode", "one tile, diffusers' layers"),
        ("decode", "one tile, streamed, eager"),
        ("decode", "the whole clip"),
        ("encode", "two prompts and the identity image"),
        ("reuse", "no cache"),
        ("reuse", "reference"),
        ("reuse", "first_block, wherever it may"),
    }


def test_our_step_is_that_of_diffusers_class(measured: ModelBench) -> None:
    (difference,) = [row.ratio for row in measured.rows if row.what == "difference to diffusers' class"]
    assert difference is not None
    assert difference < 2e-6


def test_a_ratio_is_that_of_the_seconds_beside_it(measured: ModelBench) -> None:
    row = {row.what: row for row in measured.rows if row.stage == "step"}
    for name, beside in (
        ("one branch", "bare operations of the branch"),
        ("step of two branches", "bare operations of the step"),
        ("step of diffusers' class", "step of two branches"),
    ):
        assert row[name].ratio == pytest.approx(_seconds(row[name]) / _seconds(row[beside]))


def _seconds(row: Row) -> float:
    assert row.seconds is not None
    return row.seconds


def test_what_the_step_caches_leave_out(measured: ModelBench) -> None:
    notes = {row.what: row.note for row in measured.rows if row.stage == "reuse"}
    assert "0 of 4 steps reuse, 0.0%" in notes["no cache"]
    assert "1 of 4 steps reuse" in notes["first_block, wherever it may"]
    assert "PSNR" in notes["first_block, wherever it may"]
    assert "random weights" in notes["reference"]


def test_the_file_has_every_field_of_every_row(measured: ModelBench, file: Path) -> None:
    stored = json.loads(file.read_text())
    assert {"device", "threads", "dtype", "weights", "versions", "text_rows"} <= set(stored)
    assert stored["rows"] == [{field.name: getattr(row, field.name) for field in fields(Row)} for row in measured.rows]


def test_the_table_has_one_line_for_each_row(measured: ModelBench) -> None:
    heading, *lines = as_lines(measured.rows)
    assert len(lines) == len(measured.rows)
    assert heading.split() == ["stage", "what", "size", "seconds", "rate", "ratio", "peak", "note"]


def test_the_picture_has_the_step_and_what_it_is_compared_with(measured: ModelBench) -> None:
    picture = measured.plot()
    minidom.parseString(picture)  # noqa: S318 - our own
    words = {unescape(words) for words in re.findall(r"<text[^>]*>([^<]*)<", picture)}
    assert {"step of two branches", "bare operations of the step", "step of diffusers' class"} <= words
    assert not ModelBench(machine=measured.machine, rows=[]).plot()


def _failures(rows: Sequence[Row]) -> set[tuple[str, str]]:
    return {(row.stage, row.what) for row in rows if row.error}


def test_what_fails_is_a_row_and_the_rest_is_measured() -> None:
    """More valid rows of text than there are rows: our forward refuses it."""
    rows = bench_model(tiny_plan(text_rows=(7, 900), stages=["step", "shares", "decode"])).rows
    failures = _failures(rows)
    assert failures >= {("step", "step of two branches"), ("step", "one branch"), ("shares", "all of it")}
    measured = {(row.stage, row.what) for row in rows if row.seconds}
    assert measured >= {("step", "bare operations of the step"), ("decode", "one tile"), ("decode", "the whole clip")}
    (line,) = [line for line in as_lines(rows) if line.startswith("shares")]
    assert "not measured: RuntimeError: " in line


def test_without_time_every_stage_says_so() -> None:
    rows = bench_model(tiny_plan(limit_s=0.0)).rows
    assert [(row.stage, row.error) for row in rows] == [(stage, OUT_OF_TIME) for stage in STAGES]
