"""`hunyuan-custom bench load`: a model loaded as the server loads it, in a process of its own."""

import time
from dataclasses import dataclass
from pathlib import Path

from pipeline.options import MemoryPlan
from weights.checks.loading_check import check_loadable
from weights.disk import drop_from_cache, read_whole
from weights.process_memory import in_a_process


@dataclass(frozen=True, kw_only=True)
class LoadBench:
    """One measurement. `peak_rss_anon`: memory of the process itself, in bytes; pages of mapped files are not."""

    nbytes: int
    seconds: float
    peak_rss_anon: int
    cached: bool

    def lines(self) -> list[str]:
        """For the terminal."""
        return [
            f"weights        {self.nbytes / 1e9:.2f} GB",
            f"loaded in      {self.seconds:.1f} s, from the {'page cache' if self.cached else 'disk'}",
            f"rate           {self.nbytes / self.seconds / 1e9:.1f} GB/s (a CPU maps the files and reads them in use)",
            f"peak RssAnon   {self.peak_rss_anon / 1e9:.2f} GB",
        ]


def bench_load(folder: Path, *, device: str, memory_plan: MemoryPlan, cached: bool) -> LoadBench:
    """Load the model in `folder` in bf16, with all or nothing of it in the page cache. Raises `WeightsError`."""
    check_loadable(folder)
    files = list(folder.rglob("*.safetensors"))
    for file in files:
        if cached:
            read_whole(file)
        else:
            drop_from_cache(file)
    seconds, peak = in_a_process(_load, folder, device, memory_plan)
    nbytes = sum(file.stat().st_size for file in files)
    return LoadBench(nbytes=nbytes, seconds=seconds, peak_rss_anon=peak, cached=cached)


def _load(folder: Path, device: str, memory_plan: MemoryPlan) -> float:
    import torch

    from pipeline.load import load_pipeline

    if device.startswith("cuda"):
        torch.empty(1, device=device)  # the server has its context before it reads the first weight
    started = time.monotonic()
    load_pipeline(folder, device=device, dtype="bfloat16", memory_plan=memory_plan)
    return time.monotonic() - started
