"""What one branch spends its time on, by torch's profiler."""

from collections.abc import Iterator
from typing import Any

from torch.profiler import ProfilerActivity, profile

from pipeline.checks.bench.stopwatch import Stopwatch
from pipeline.checks.bench.subject import Request
from pipeline.checks.bench.table import Row

STAGE = "shares"

# Words in the names of CUDA kernels and of torch's CPU operators; what fits none is the rest: memory traffic.
_WORDS = {
    "attention": ("flash", "fmha", "sdpa", "attention"),
    "matrix products": ("gemm", "nvjet", "cutlass", "xmma", "wgmma", "addmm", "aten::mm", "aten::bmm", "convolution"),
    "copies, casts, concatenations": ("copy", "cat", "memcpy", "memset", "aten::to", "clone"),
    "normalisations": ("norm", "reduce", "aten::mean", "aten::pow", "rsqrt"),
}
REST = "elementwise and others"


def shares(request: Request, stopwatch: Stopwatch) -> Iterator[Row]:
    on_gpu = stopwatch.device.type == "cuda"
    request.branch()
    with profile(activities=[ProfilerActivity.CUDA if on_gpu else ProfilerActivity.CPU]) as profiler:
        wall, _ = stopwatch.result(request.branch)
    seconds = dict.fromkeys((*_WORDS, REST), 0.0)
    for event in profiler.key_averages():
        seconds[group(event.key)] += _microseconds(event, on_gpu) / 1e6
    total = sum(seconds.values())
    for name, spent in seconds.items():
        yield Row(
            stage=STAGE,
            what=name,
            size=request.name,
            tokens=request.tokens,
            seconds=spent,
            ratio=spent / total if total else None,
            of="all",
        )
    if on_gpu:
        what = "the GPU is busy"
        yield Row(stage=STAGE, what=what, size=request.name, seconds=total, ratio=total / wall, of="the time")


def group(name: str) -> str:
    """Of a kernel or operator."""
    name = name.lower()
    return next((kind for kind, words in _WORDS.items() if any(word in name for word in words)), REST)


def _microseconds(event: Any, on_gpu: bool) -> float:
    return float(event.self_device_time_total if on_gpu else event.self_cpu_time_total)
