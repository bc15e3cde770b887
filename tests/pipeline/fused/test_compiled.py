"""Passes compiled for real, by the C++ compiler: at loading, once for all sizes; equal to the eager ones, or eager."""

import copy
import dataclasses
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler
from torch import Tensor
from torch._dynamo.utils import counters

from pipeline.fused import compiled
from pipeline.fused.agreement import agree, check_agreement
from pipeline.fused.compiled import CompiledPass, compiled_passes
from pipeline.fused.fallback import compiled_or_eager
from pipeline.fused.kernels import EAGER, Kernels
from pipeline.fused.passes import EAGER_PASSES, Passes
from pipeline.hunyuan_custom import HunyuanCustomPipeline
from pipeline.load import load_pipeline
from tests.harness.ranks_at_work import REQUESTS, denoised, tiny_request_pipeline
from tests.harness.tiny_pipeline import tiny_transformer

pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit.script:DeprecationWarning")  # torch's own, as it compiles

DTYPE, CPU = torch.bfloat16, torch.device("cpu")


@pytest.fixture(scope="module")
def passes(
    dit: Any,
    tiny_vae: Any,
    llava: Any,
    llava_tokenizer: Any,
    clip: Any,
    clip_tokenizer: Any,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Passes]:
    """Those of the reference's tiny pipeline, loaded from its folder in bf16."""
    folder, cache = tmp_path_factory.mktemp("model"), tmp_path_factory.mktemp("compiled")
    HunyuanCustomPipeline(
        transformer=dit,
        vae=tiny_vae,
        scheduler=FlowMatchEulerDiscreteScheduler(shift=13.0),
        text_encoder=llava,
        tokenizer=llava_tokenizer,
        text_encoder_2=clip,
        tokenizer_2=clip_tokenizer,
    ).save_pretrained(folder)
    reported: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TORCHINDUCTOR_CACHE_DIR", str(cache))
        patch.setattr(torch._inductor.config, "compile_threads", 1)
        counters.clear()
        options: dict[str, Any] = {"device": "cpu", "dtype": "bfloat16", "on_progress": reported.append}
        loaded = load_pipeline(folder, fused="compiled", **options)
        assert reported[-1] == "fused passes"
        assert list(cache.rglob("*.so"))
        assert load_pipeline(folder, **options)._kernels == EAGER
        yield loaded._kernels.passes


def _compiled(passes: Passes) -> list[CompiledPass]:
    found = [getattr(passes, field.name) for field in dataclasses.fields(passes)]
    assert all(isinstance(one, CompiledPass) and one._works for one in found)
    return found


def test_requests_of_any_size_compile_nothing_and_match_the_eager_passes(
    passes: Passes, close: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In fp32 sums the order differs, so that a request ends at other bits; not in more than the noise of bf16.

    How much that is depends on the processor too. It moves the eager result away from that in fp32, and the other
    result as far, maybe in the opposite direction.
    """
    exact, pipe = tiny_request_pipeline(2), tiny_request_pipeline(2)
    pipe.transformer.bfloat16()
    compared: list[str] = []

    def compare(eager: Any, *rest: Any) -> None:
        compared.append(eager.__name__)
        check_agreement(eager, *rest)

    monkeypatch.setattr(compiled, "check_agreement", compare)
    for name, (size, heads, options) in REQUESTS.items():
        if heads == 2:
            pipe.enable_kernels(Kernels())
            expected = denoised(pipe, size, options)
            noise = (expected - denoised(exact, size, options)).abs().max().item()
            pipe.enable_kernels(Kernels(passes=passes))
            actual = denoised(pipe, size, options)
            close(f"compiled passes, {name}", actual, expected, 2 * noise)
    assert sorted(compared) == ["gate", "gelu_join", "modulate", "rotate"]  # once, on the tensors of the first request
    assert len(_compiled(passes)) == counters["stats"]["unique_graphs"] == 4


def test_every_pass_rounds_where_the_eager_one_does(passes: Passes) -> None:
    for rows in (1, 2, 3, 100):
        for name, tensors in compiled._inputs(tiny_transformer().config, DTYPE, CPU).items():
            part = [tensor[:rows].clone() if tensor.ndim > 1 else tensor for tensor in tensors]
            expected = copy.deepcopy(part)
            actual = getattr(passes, name)(*part)
            wanted = getattr(EAGER_PASSES, name)(*expected)
            assert agree(*(part[-1], expected[-1]) if wanted is None else (actual, wanted))
    assert counters["stats"]["unique_graphs"] == len(_compiled(passes))


def test_what_a_pass_was_not_compiled_for_runs_eagerly_with_one_warning(
    passes: Passes, caplog: pytest.LogCaptureFixture
) -> None:
    gate = copy.copy(_compiled(passes)[2])
    x, gates, update = (torch.randn(shape) for shape in ((5, 64), (64,), (5, 64)))  # fp32
    for _ in range(2):
        assert torch.equal(gate(x, gates, update), EAGER_PASSES.gate(x, gates, update))
    assert _warnings(caplog) == ["pass `gate` runs in eager torch from now on: FailOnRecompileLimitHit"]


def test_a_pass_that_differs_on_the_first_real_tensors_is_eager_from_then_on(
    passes: Passes, caplog: pytest.LogCaptureFixture
) -> None:
    gate = copy.copy(_compiled(passes)[2])
    gate._compared = False
    gate._compiled = lambda x, gates, update: x + 1.02 * gates * update  # a miscompilation
    x, gates, update = (torch.randn(shape).to(DTYPE) for shape in ((5, 64), (64,), (5, 64)))
    for _ in range(2):
        assert torch.equal(gate(x, gates, update), EAGER_PASSES.gate(x, gates, update))
    assert _warnings(caplog) == ["pass `gate` runs in eager torch from now on: PassesDiffer"]


def test_running_out_of_memory_is_not_the_compiler_s_fault(passes: Passes) -> None:
    gate = copy.copy(_compiled(passes)[2])

    def full(*_: Tensor) -> Tensor:
        raise torch.OutOfMemoryError

    gate._compiled = full
    with pytest.raises(torch.OutOfMemoryError):
        gate(*(torch.randn(shape).to(DTYPE) for shape in ((5, 64), (64,), (5, 64))))
    assert gate._works


def test_without_a_compiler_everything_is_eager_with_one_warning(
    passes: Passes,  # noqa: ARG001 - compiled before: what is compiled without one could not be told apart
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(torch._inductor.config.cpp, "cxx", ("no-such-compiler",))
    assert compiled_passes(tiny_transformer().config, DTYPE, CPU) is EAGER_PASSES
    assert _warnings(caplog) == ["the blocks' passes run in eager torch, slower: InductorError"]


@pytest.mark.parametrize("error", [torch.OutOfMemoryError, torch.AcceleratorError])
def test_what_is_not_the_compiler_s_fault_is_raised_when_it_compiles(error: type[Exception]) -> None:
    def compile_() -> str:
        raise error("no memory")

    with pytest.raises(error, match="no memory"):
        compiled_or_eager("passes", eager="eager", compiled=compile_)


def test_agreement_is_one_rounding() -> None:
    expected = torch.randn(64, 128).to(DTYPE)
    bits = expected.view(torch.int16)
    assert agree(expected, expected)
    flipped = bits.clone()
    flipped[3, 5] += 1
    assert agree(flipped.view(DTYPE), expected)
    largest = expected[7].abs().argmax()
    bits[7, largest] += 2
    assert not agree(bits.view(DTYPE), flipped.view(DTYPE))


def _warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Up to the second colon, behind which are torch's words."""
    modules = (compiled.__name__, compiled_or_eager.__module__)
    own = [record for record in caplog.records if record.name in modules and record.levelno > logging.INFO]
    return [":".join(record.getMessage().split(":")[:2]) for record in own]
