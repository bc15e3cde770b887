"""`hunyuan-custom bench convert`: a full-size synthetic checkpoint, converted and measured against `cp && sync`."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from weights.errors import CheckpointError, WeightsError
from weights.original_layout import DIT_NAME, OriginalFiles, Variant
from weights.process_memory import rss_anon
from weights.staging import require_space

POLL_SECONDS = 0.05


@dataclass(frozen=True, kw_only=True)
class ConvertBench:
    """One measurement. Seconds are wall-clock; `peak_rss_anon` is the converter process's own memory, in bytes."""

    nbytes: int
    copy_seconds: float
    convert_seconds: float
    peak_rss_anon: int
    original_keys: int
    mapped_keys: int
    produced_keys: int
    missing_keys: int
    left_over_keys: int

    @property
    def ratio(self) -> float:
        """Conversion over copy."""
        return self.convert_seconds / self.copy_seconds

    def lines(self) -> list[str]:
        """For people."""
        return [
            f"checkpoint         {self.nbytes / 1e9:.2f} GB",
            f"cp && sync         {self.copy_seconds:.1f} s ({self.nbytes / 1e6 / self.copy_seconds:.0f} MB/s)",
            f"convert            {self.convert_seconds:.1f} s, {self.ratio:.2f} x cp && sync (bound: 1.6)",
            f"peak RssAnon       {self.peak_rss_anon / 1e9:.2f} GB (bound: 2)",
            f"keys               {self.original_keys} original, {self.mapped_keys} mapped, "
            f"{self.produced_keys} produced, {self.missing_keys} missing, {self.left_over_keys} left over",
        ]


def bench_convert(
    directory: Path,
    *,
    config: Mapping[str, Any] | None = None,
    say: Callable[[str], None] = lambda line: None,  # noqa: ARG005
) -> ConvertBench:
    """Measure in `directory`, which needs twice the checkpoint's size (2 x 26 GB) free; everything is removed again.

    `config` holds diffusers' transformer keys (default: the full size). The file is dropped from the page cache
    before each timing. Raises `TargetError` without the space, `WeightsError` if the conversion fails.
    """
    from weights.component import json_text
    from weights.plan_transformer import FULL_SIZE
    from weights.structure import transformer_shapes
    from weights.synthetic import tensor_bytes, write_original_dit

    config = FULL_SIZE if config is None else config
    expected = transformer_shapes(config)
    size = tensor_bytes(expected)
    require_space(directory, 2 * size + 1_000_000_000)
    work = directory / "bench-convert"
    work.mkdir(parents=True)
    try:
        dit = work / f"{DIT_NAME}.pt"
        say(f"writing a synthetic checkpoint of {size / 1e9:.1f} GB")
        nbytes = write_original_dit(dit, config)
        (work / "config.json").write_text(json_text(config))
        say("copying it")
        copy_seconds = _timed_copy(dit, work / "copy.pt")
        say("converting it")
        _drop_from_cache(dit)
        started = time.monotonic()
        peak = _converted_in_a_process(dit, work / "converted")
        convert_seconds = time.monotonic() - started
        original, mapped, produced = _coverage(dit, work / "converted/transformer")
    finally:
        shutil.rmtree(work)
    return ConvertBench(
        nbytes=nbytes,
        copy_seconds=copy_seconds,
        convert_seconds=convert_seconds,
        peak_rss_anon=peak,
        original_keys=len(original),
        mapped_keys=mapped,
        produced_keys=len(produced),
        missing_keys=len(set(expected) - set(produced)),
        left_over_keys=len(set(produced) - set(expected)),
    )


def _timed_copy(source: Path, copy: Path) -> float:
    _drop_from_cache(source)
    programs = [shutil.which(name) or name for name in ("cp", "sync")]
    started = time.monotonic()
    subprocess.run([programs[0], str(source), str(copy)], check=True)
    subprocess.run([programs[1]], check=True)
    seconds = time.monotonic() - started
    copy.unlink()
    subprocess.run([programs[1]], check=True)
    return seconds


def _drop_from_cache(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
        os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(handle)


def _converted_in_a_process(dit: Path, target: Path) -> int:
    """Convert in a fresh process, which counts its start and imports too; returns its peak RssAnon in bytes."""
    process = multiprocessing.get_context("spawn").Process(target=_convert_dit, args=(dit, target))
    process.start()
    peak = 0
    while process.is_alive():
        peak = max(peak, rss_anon(process.pid or 0))
        process.join(POLL_SECONDS)
    if process.exitcode != 0:
        raise WeightsError(f"{dit}: the conversion failed (exit code {process.exitcode})")
    return peak


def _convert_dit(dit: Path, target: Path) -> None:
    from weights.convert import write_components
    from weights.plan_transformer import plan_transformer

    nothing = dit.parent / "not-part-of-the-measurement"
    files = OriginalFiles(
        variant=Variant.BF16,
        dit=dit,
        scale_map=None,
        dit_config=dit.parent / "config.json",
        vae_config=nothing,
        vae=nothing,
        llava=nothing,
        clip=nothing,
    )
    write_components([plan_transformer(files)], target)


def _coverage(dit: Path, folder: Path) -> tuple[list[str], int, list[str]]:
    """Original keys, how many of them the table maps, and the keys found in the result."""
    from weights.key_map import DitSizes, pieces_of
    from weights.plan_transformer import list_dit, transformer_config
    from weights.safetensors_file import list_safetensors

    stored = list_dit(dit)
    sizes = DitSizes.from_config(transformer_config(dit.parent / "config.json"))
    mapped = sum(bool(pieces_of(key, tensor.rows, sizes)) for key, tensor in stored.items())
    produced = [key for path in sorted(folder.glob("*.safetensors")) for key in list_safetensors(path)]
    if len(produced) != len(set(produced)):
        raise CheckpointError(f"{folder}: a key was produced twice")
    return list(stored), mapped, produced
