"""A guided step and one branch, against the sum of their bare operations and against diffusers' own class."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from pipeline.checks.bench.operations import Attention, Bare, Inputs, MatMul, Operation, flops, of_step
from pipeline.checks.bench.preview import preview
from pipeline.checks.bench.stopwatch import Case, Stopwatch, Timed
from pipeline.checks.bench.subject import Request
from pipeline.checks.bench.table import Row
from pipeline.memory.host_layers import HostLayer
from pipeline.transformer import compute_dtype

STAGE = "step"
STEP, ROOFLINE, STOCK = "step of two branches", "bare operations of the step", "step of diffusers' class"
_AGREEMENT = 2e-6
BRANCH, BRANCH_ROOFLINE = "one branch", "bare operations of the branch"


def step(request: Request, stopwatch: Stopwatch) -> Iterator[Row]:
    """Seconds and TF/s. Operations are those of valid tokens, for the stock class too, which computes more."""
    found = of_step(request.transformer, request.branches, request.tokens)
    of_one = of_step(request.transformer, request.branches[-1:], request.tokens)
    products: list[Operation] = [operation for operation in found if isinstance(operation, MatMul)]
    attentions: list[Operation] = [operation for operation in found if isinstance(operation, Attention)]
    inputs = Inputs(stopwatch.device, compute_dtype(request.transformer))
    bare = partial(Bare, inputs=inputs, attention=request.kernels.attention)
    stock = StockStep(request)
    settings = {STOCK: stock.setting}
    work: dict[str, tuple[Callable[[], object], list[Operation]]] = {  # bare ones last: their inputs are memory, too
        STEP: (request.step, found),
        BRANCH: (request.branch, of_one),
        STOCK: (stock, found),
        ROOFLINE: (bare(found), found),
        BRANCH_ROOFLINE: (bare(of_one), of_one),
        "matrix products alone": (bare(products), products),
        "attention alone": (bare(attentions), attentions),
    }
    timed = stopwatch.minima([Case(name, run, settings.get(name, nullcontext)) for name, (run, _) in work.items()])
    ratios = {STEP: (ROOFLINE, "bare"), STOCK: (STEP, "ours"), BRANCH: (BRANCH_ROOFLINE, "bare")}
    for name, (_, operations) in work.items():
        base, of = ratios.get(name, ("", ""))
        yield _row(request, name, timed[name], operations, base=timed.get(base, Timed()), of=of)
    yield _equality(request, stock, timed[STOCK])
    yield from preview(request, timed[STEP].seconds, stopwatch, stage=STAGE)


def _row(request: Request, name: str, timed: Timed, operations: Sequence[Operation], *, base: Timed, of: str) -> Row:
    return Row(
        stage=STAGE,
        what=name,
        size=request.name,
        tokens=request.tokens,
        seconds=timed.seconds,
        rate=flops(operations) / timed.seconds / 1e12 if timed.seconds else None,
        unit="TF/s",
        ratio=timed.seconds / base.seconds if timed.seconds and base.seconds else None,
        of=of,
        peak_bytes=timed.peak_bytes,
        error=timed.error,
    )


def _equality(request: Request, stock: "StockStep", timed: Timed) -> Row:
    """The velocities of both branches, relative to the largest value. In fp32 they must agree."""
    what = "difference to diffusers' class"
    if timed.error:
        return Row(stage=STAGE, what=what, size=request.name, error=timed.error)
    with stock.setting():
        theirs = stock()
    ours = torch.cat(request.step())
    difference = ((ours - theirs).abs().max() / theirs.abs().max()).item()
    exact = compute_dtype(request.transformer) == torch.float32
    return Row(
        stage=STAGE,
        what=what,
        size=request.name,
        tokens=request.tokens,
        ratio=difference,
        of="its largest value",
        note=f"at most {_AGREEMENT:g} allowed" if exact else "",
        error=f"more than {_AGREEMENT:g}" if exact and not difference <= _AGREEMENT else "",
    )


class StockStep:
    """diffusers' own forward of both branches as one batch, padded and with its mask, as its pipelines call it.

    The rotary positions are ours: without them it is another model.
    """

    def __init__(self, request: Request) -> None:
        self._request = request
        branches = request.branches
        dtype = compute_dtype(request.transformer)
        clips = [torch.cat([branch.reference, request.latents], dim=2) for branch in branches]
        self._inputs = {
            "hidden_states": torch.cat(clips).to(dtype),
            "timestep": request.timestep.expand(len(branches)),
            "encoder_hidden_states": torch.cat([branch.text for branch in branches]),
            "encoder_attention_mask": torch.cat([branch.mask for branch in branches]),
            "pooled_projections": torch.cat([branch.pooled for branch in branches]),
        }

    @contextmanager
    def setting(self) -> Iterator[None]:
        """With all layers on the device: ours are without those of the modulation there."""
        model, device = self._request.transformer, self._request.latents.device
        hosted = [layer for layer in model.modules() if isinstance(layer, HostLayer)]
        kept = [parameter for layer in hosted for parameter in layer.parameters()]
        before = [parameter.data for parameter in kept]
        for parameter in kept:
            parameter.data = parameter.data.to(device)
        try:
            yield
        finally:
            for parameter, data in zip(kept, before, strict=True):
                parameter.data = data

    @torch.no_grad()
    def __call__(self) -> Tensor:
        """Velocities fp32 [2,16,T,h,w]."""
        model = self._request.transformer
        own, model.rope = model.rope, _Tables(self._request)
        try:
            (clips,) = model(**self._inputs, return_dict=False)
        finally:
            model.rope = own
        return clips[:, :, 1:].float()


class _Tables(nn.Module):
    def __init__(self, request: Request) -> None:
        super().__init__()
        self._rope = tuple(table[: request.tokens] for table in request.rope)

    def forward(self, _latents: Tensor) -> Any:
        return self._rope
