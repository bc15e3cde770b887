"""`hunyuan-custom bench convert`: a full-size synthetic checkpoint, converted and measured against `cp && sync`."""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from weights.checks.key_coverage import KeyCoverage, coverage_of_conversion, table
from weights.checks.synthetic import tensor_bytes, write_original_dit
from weights.disk import drop_from_cache
from weights.errors import TargetError
from weights.originals.layout import DIT_NAME, OriginalFiles, Variant
from weights.originals.plan_transformer import FULL_SIZE, plan_transformer
from weights.originals.structure import transformer_shapes
from weights.process_memory import in_a_process
from weights.writing.component import json_text
from weights.writing.staging import scratch_folder
from weights.writing.write_components import write_components

SCRATCH = ".hunyuan-custom-bench-convert"
MAX_RATIO = 2.0
MAX_RSS_ANON = 2_000_000_000


@dataclass(frozen=True, kw_only=True)
class ConvertBench:
    """One measurement. Seconds are wall-clock; `peak_rss_anon` is the converter process's own memory, in bytes."""

    nbytes: int
    copy_seconds: float
    convert_seconds: float
    peak_rss_anon: int
    keys: KeyCoverage

    @property
    def ratio(self) -> float:
        """Conversion over copy."""
        return self.convert_seconds / self.copy_seconds

    @property
    def within_bounds(self) -> bool:
        """Time and memory as promised, every key mapped and none left."""
        complete = self.keys.original == self.keys.mapped and not self.keys.missing and not self.keys.left_over
        return complete and self.ratio <= MAX_RATIO and self.peak_rss_anon <= MAX_RSS_ANON

    def lines(self) -> list[str]:
        """The measurement as lines of text."""
        return [
            f"checkpoint         {self.nbytes / 1e9:.2f} GB",
            f"cp && sync         {self.copy_seconds:.1f} s ({self.nbytes / 1e6 / self.copy_seconds:.0f} MB/s)",
            f"convert            {self.convert_seconds:.1f} s, {self.ratio:.2f} x cp && sync (bound: {MAX_RATIO})",
            f"peak RssAnon       {self.peak_rss_anon / 1e9:.2f} GB (bound: {MAX_RSS_ANON / 1e9:g})",
            *table([self.keys]),
            "within bounds" if self.within_bounds else "BEYOND BOUNDS",
        ]


def bench_convert(
    directory: Path,
    *,
    config: Mapping[str, Any] = FULL_SIZE,
    say: Callable[[str], None] = lambda line: None,  # noqa: ARG005
) -> ConvertBench:
    """Measure in `directory`, which needs twice the checkpoint's size (2 x 26 GB) free; everything is removed again.

    `config` holds diffusers' transformer keys (default: the full size). The file is dropped from the page cache
    before each timing. Raises `TargetError` without the space or when copying fails, `WeightsError` if the conversion
    does.
    """
    size = tensor_bytes(transformer_shapes(config))
    with scratch_folder(directory / SCRATCH, 2 * size + 1_000_000_000) as work:
        dit = work / f"{DIT_NAME}.pt"
        say(f"writing a synthetic checkpoint of {size / 1e9:.1f} GB")
        nbytes = write_original_dit(dit, config)
        (work / "config.json").write_text(json_text(config))
        say("copying it")
        copy_seconds = _timed_copy(dit, work / "copy.pt")
        say("converting it")
        drop_from_cache(dit)
        started = time.monotonic()
        _, peak = in_a_process(_convert_dit, dit, work / "converted")
        convert_seconds = time.monotonic() - started
        keys = coverage_of_conversion(dit, config, work / "converted/transformer")
    return ConvertBench(
        nbytes=nbytes, copy_seconds=copy_seconds, convert_seconds=convert_seconds, peak_rss_anon=peak, keys=keys
    )


def _timed_copy(source: Path, copy: Path) -> float:
    drop_from_cache(source)
    started = time.monotonic()
    _run("cp", str(source), str(copy))
    _run("sync")
    seconds = time.monotonic() - started
    copy.unlink()
    _run("sync")
    return seconds


def _run(program: str, *arguments: str) -> None:
    command = [shutil.which(program) or program, *arguments]
    done = subprocess.run(command, stderr=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        raise TargetError(f"{program} failed: {done.stderr.strip() or f'exit code {done.returncode}'}")


def only_a_transformer(dit: Path) -> OriginalFiles:
    """A checkpoint with its config beside it and nothing else of the model."""
    none = dit.with_name("none")
    return OriginalFiles(
        variant=Variant.BF16,
        dit=dit,
        scale_map=None,
        dit_config=dit.with_name("config.json"),
        vae_config=none,
        vae=none,
        llava=none,
        clip=none,
    )


def _convert_dit(dit: Path, target: Path) -> None:
    write_components([plan_transformer(only_a_transformer(dit))], target)
