"""The list of operations is the forward's: torch counts as many in it, and so does the arithmetic of the full size."""

import pytest
import torch
from diffusers import HunyuanVideoTransformer3DModel
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from pipeline.checks.bench.operations import Bare, Inputs, flops, of_branches, of_step, operations
from tests.harness.tiny_bench import CPU, tiny_request
from weights.originals.plan_transformer import FULL_SIZE


def test_it_counts_what_torch_counts() -> None:
    request = tiny_request()
    found = of_step(request.transformer, request.branches, request.tokens)
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:  # torch does not count CPU kernels
        request.step()
    assert flops(found) == counter.get_total_flops()
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        Bare(found, Inputs(CPU, torch.float32))()
    assert flops(found) == counter.get_total_flops()
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        request.denoised(1)
    assert flops(of_branches(request.transformer, request.branches, request.tokens)) == counter.get_total_flops()


@pytest.mark.parametrize(("frames", "petaflops"), [(33, 3.65), (21, 1.74)])
def test_the_full_size(frames: int, petaflops: float) -> None:
    """512x896 at 129 and 81 frames with 831 rows of text: 0.84 + 2.81 and 0.55 + 1.19 PF, blocks alone."""
    with torch.device("meta"):
        model = HunyuanVideoTransformer3DModel(**FULL_SIZE)
    found = operations(model, image=(1 + frames) * 32 * 56, valid=831, rows=831)
    assert flops(found) / 1e15 == pytest.approx(petaflops, rel=0.01)
