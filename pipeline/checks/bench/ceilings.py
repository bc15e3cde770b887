"""What the device can do at best: matrix products, copies, each attention kernel that is available."""

import contextlib
from collections import Counter
from collections.abc import Iterator
from functools import partial

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from pipeline.attention.backends import BACKENDS, UnusableAttentionError, load
from pipeline.attention.function import AttentionFunction, sdpa
from pipeline.attention.probe import Heads, worst_row
from pipeline.checks.bench.operations import Attention, MatMul, of_step
from pipeline.checks.bench.stopwatch import Case, Stopwatch
from pipeline.checks.bench.subject import Request
from pipeline.checks.bench.table import Row
from pipeline.transformer import compute_dtype

STAGE = "ceilings"
_SHARE = 0.02  # products with less of the step's operations are not listed

_KERNELS = {
    "flash": SDPBackend.FLASH_ATTENTION,
    "efficient": SDPBackend.EFFICIENT_ATTENTION,
    "cudnn": SDPBackend.CUDNN_ATTENTION,
}


def ceilings(request: Request, heads: Heads, stopwatch: Stopwatch) -> Iterator[Row]:
    yield from _products(request, stopwatch)
    yield from _copies(stopwatch)
    rows = request.tokens + request.branches[-1].valid
    query, key, value = torch.randn(
        3, 1, rows, heads.count, heads.width, dtype=heads.dtype, device=heads.device
    )  # drawn there: 2 GB at full size
    flops = Attention("block", rows, heads.count, heads.width).flops
    attends = attention_kernels(heads)
    cases = [Case(name, partial(attend, query, key, value)) for name, attend in attends.items()]
    for name, timed in stopwatch.minima(cases).items():
        yield Row(
            stage=STAGE,
            what=f"attention: {name}",
            size=f"{rows} x {heads.count} x {heads.width}",
            seconds=timed.seconds,
            rate=flops / timed.seconds / 1e12 if timed.seconds else None,
            unit="TF/s",
            note="" if timed.error else f"error {worst_row(attends[name], heads):.1e}",
            error=timed.error,
        )


def attention_kernels(heads: Heads) -> dict[str, AttentionFunction]:
    """By name, those that run here: the backends of `generator.attention`, and torch's kernels one by one."""
    found: dict[str, AttentionFunction] = {}
    for name, backend in BACKENDS.items():
        with contextlib.suppress(UnusableAttentionError):
            found[name] = load(backend)
    found |= {f"sdpa, {name}": partial(_kernel, kernel) for name, kernel in _KERNELS.items()}
    return {name: attend for name, attend in found.items() if _runs(attend, heads)}


def _kernel(kernel: SDPBackend, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    with sdpa_kernel(kernel):
        return sdpa(query, key, value)


def _runs(attend: AttentionFunction, heads: Heads) -> bool:
    """On this device, in this build."""
    try:
        attend(*heads.drawn(64))
    except Exception:
        return False
    return True


def _products(request: Request, stopwatch: Stopwatch) -> Iterator[Row]:
    dtype = compute_dtype(request.transformer)
    found = [
        operation
        for operation in of_step(request.transformer, request.branches[-1:], request.tokens)
        if isinstance(operation, MatMul)
    ]
    total: Counter[tuple[int, int, int]] = Counter()
    for product in found:
        total[product.rows, product.inputs, product.outputs] += product.flops
    side = 8192 if stopwatch.device.type == "cuda" else 1024
    shapes = [shape for shape, flops in total.items() if flops > _SHARE * total.total()]
    for rows, inputs, outputs in [(side, side, side), *shapes]:
        x, weight = (torch.randn(count, inputs, device=stopwatch.device, dtype=dtype) for count in (rows, outputs))
        (timed,) = stopwatch.minima([Case("", lambda x=x, weight=weight: x @ weight.T)]).values()  # type: ignore[misc]
        yield Row(
            stage=STAGE,
            what="matrix product",
            size=f"{rows} x {inputs} x {outputs}",
            seconds=timed.seconds,
            rate=2 * rows * inputs * outputs / timed.seconds / 1e12 if timed.seconds else None,
            unit="TF/s",
            error=timed.error,
        )


def _copies(stopwatch: Stopwatch) -> Iterator[Row]:
    """On the device, and on a GPU also from the host."""
    on_gpu, device = stopwatch.device.type == "cuda", stopwatch.device
    nbytes = 2**31 if on_gpu else 2**27
    yield _copy("copy, read and written", torch.zeros(nbytes, dtype=torch.uint8, device=device), stopwatch, times=2)
    for pinned in (False, True) if on_gpu else ():
        block = torch.zeros(2**28, dtype=torch.uint8, pin_memory=pinned)  # about the size of a transformer block
        yield _copy(f"copy from {'pinned' if pinned else 'pageable'} memory", block, stopwatch)


def _copy(what: str, source: Tensor, stopwatch: Stopwatch, *, times: int = 1) -> Row:
    """`times`: how often each byte passes the memory or the bus."""
    target = torch.empty_like(source, device=stopwatch.device)
    (timed,) = stopwatch.minima([Case("", lambda: target.copy_(source, non_blocking=True))]).values()
    return Row(
        stage=STAGE,
        what=what,
        size=f"{source.nbytes / 1e9:.2g} GB",
        seconds=timed.seconds,
        rate=times * source.nbytes / timed.seconds / 1e9 if timed.seconds else None,
        unit="GB/s",
        error=timed.error,
    )
