"""The measurement itself, on a tiny checkpoint: it measures, counts keys and leaves nothing behind."""

from __future__ import annotations

import json
import math
import os
import threading
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import HunyuanVideoTransformer3DModel

from tests.harness.command import run_command
from weights.checks import convert_benchmark as bench_module
from weights.checks.convert_benchmark import SCRATCH, ConvertBench, bench_convert, only_a_transformer
from weights.checks.key_coverage import KeyCoverage, full_size_coverage, table
from weights.checks.synthetic import write_converted_transformer, write_original_dit
from weights.originals.key_map import original_shapes
from weights.originals.plan_transformer import FULL_SIZE, plan_transformer
from weights.originals.structure import transformer_shapes
from weights.originals.torch_checkpoint import list_torch_checkpoint
from weights.process_memory import rss_anon
from weights.writing.write_components import write_components


def test_the_bench_measures_and_cleans_up_after_itself_and_after_a_killed_run(
    tmp_path: Path, dit_config: dict[str, Any]
) -> None:
    (tmp_path / SCRATCH / "converted").mkdir(parents=True)
    (tmp_path / SCRATCH / "converted/left").touch()
    result = bench_convert(tmp_path, config=dit_config)
    counts = KeyCoverage(component="transformer", original=116, mapped=116, produced=152, missing=0, left_over=0)
    assert result.keys == counts
    assert result.ratio > 0
    assert result.peak_rss_anon > 0
    assert list(tmp_path.iterdir()) == []
    within = replace(result, copy_seconds=1.0, convert_seconds=2.0, peak_rss_anon=2 * 10**9)
    assert within.within_bounds
    assert within.lines()[-1] == "within bounds"
    for beyond in (
        replace(within, convert_seconds=2.01),
        replace(within, peak_rss_anon=2 * 10**9 + 1),
        replace(within, keys=replace(counts, missing=1)),
        replace(within, keys=replace(counts, mapped=115)),
    ):
        assert not beyond.within_bounds


def test_the_command_fails_beyond_the_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    keys = KeyCoverage(component="transformer", original=1, mapped=1, produced=1, missing=0, left_over=0)
    measured = ConvertBench(nbytes=1, copy_seconds=1.0, convert_seconds=1.0, peak_rss_anon=1, keys=keys)
    told = {}
    for seconds in (1.0, 3.0):
        result = replace(measured, convert_seconds=seconds)
        monkeypatch.setattr(bench_module, "bench_convert", lambda *_, result=result, **__: result)
        told[seconds] = run_command("bench", "convert")
    assert (told[1.0].code, told[3.0].code) == (0, 1)
    assert "BEYOND BOUNDS" in told[3.0].out


def test_a_copy_that_fails_is_one_line(
    tmp_path: Path, dit_config: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny = partial(bench_convert, config=dit_config)
    monkeypatch.setattr(bench_module, "bench_convert", tiny)
    for program, words in (("#!/bin/sh\necho no room >&2; exit 1\n", "cp failed: no room"), (None, "'cp'")):
        with monkeypatch.context() as patch:
            (tmp_path / "cp").unlink(missing_ok=True)
            if program is not None:
                (tmp_path / "cp").write_text(program)
                (tmp_path / "cp").chmod(0o700)
            patch.setenv("PATH", str(tmp_path))
            told = run_command("bench", "convert", "--directory", str(tmp_path / "here"))
        assert told.code == 1
        assert [words in line for line in told.err.splitlines() if line.startswith("error: ")] == [True]
        assert "cannot be written" not in told.err


MEDIUM = FULL_SIZE | {"num_attention_heads": 8, "num_layers": 2, "num_single_layers": 4, "text_embed_dim": 64}


def test_memory_does_not_grow_with_the_checkpoint(tmp_path: Path) -> None:
    size = write_original_dit(tmp_path / "dit.pt", MEDIUM)
    (tmp_path / "config.json").write_text(json.dumps(MEDIUM))
    files = only_a_transformer(tmp_path / "dit.pt")
    components = [plan_transformer(files)]
    before, samples, done = rss_anon(os.getpid()), [0], threading.Event()

    def watch() -> None:
        while not done.wait(0.005):
            samples.append(rss_anon(os.getpid()))

    watcher = threading.Thread(target=watch)
    watcher.start()
    write_components(components, tmp_path / "out")
    done.set()
    watcher.join()
    assert size > 250e6
    assert len(samples) > 10
    assert max(samples) - before < 80e6, "one tensor"


def test_every_key_of_the_full_size_is_covered_and_the_command_says_so() -> None:
    rows = full_size_coverage()
    assert [(row.original, row.mapped, row.produced) for row in rows] == [
        (852, 852, 1260),
        (1172, 1172, 1780),
        (248, 248, 248),
    ]
    assert all((row.missing, row.left_over) == (0, 0) for row in rows)
    printed = run_command("weights", "keys")
    assert printed.code == 0
    assert printed.out.splitlines() == table(rows)


def test_the_synthetic_checkpoint_has_the_originals_keys_and_shapes(
    tmp_path: Path, dit_config: dict[str, Any], dit_weights: dict[str, torch.Tensor]
) -> None:
    write_original_dit(tmp_path / "x.pt", dit_config)
    stored = list_torch_checkpoint(tmp_path / "x.pt")
    assert {key: tensor.shape for key, tensor in stored.items()} == {k: tuple(v.shape) for k, v in dit_weights.items()}
    values = stored["single_blocks.0.linear1.weight"].read()
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
