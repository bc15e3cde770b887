"""One model at a time on the device, and all of them there again afterwards; the CPU stands for the device."""

import pytest
import torch
from accelerate.hooks import CpuOffload

from pipeline.checks.bench.encode import _random_pipeline, one_model_at_a_time
from pipeline.checks.bench.subject import Subject
from pipeline.memory.placement import onloaded
from tests.harness.tiny_bench import CPU, SIZES

NAMES = ("text_encoder", "text_encoder_2", "transformer", "vae")


def test_models_come_and_go_and_are_where_they_were(monkeypatch: pytest.MonkeyPatch) -> None:
    pipe = _random_pipeline(Subject(SIZES, device=CPU, dtype="float32"))
    moved: list[str] = []
    entered = CpuOffload.pre_forward

    def recorded(hook: CpuOffload, module: torch.nn.Module, *arguments: object, **named: object) -> object:
        moved.append(next(name for name in NAMES if getattr(pipe, name) is module))
        return entered(hook, module, *arguments, **named)

    monkeypatch.setattr(CpuOffload, "pre_forward", recorded)
    with one_model_at_a_time(pipe, CPU):
        for name in ("text_encoder", "transformer"):
            with onloaded(getattr(pipe, name)):
                pass
        pipe.maybe_free_model_hooks()
    assert moved == ["text_encoder", "transformer"]
    assert not [module for name in NAMES for module in getattr(pipe, name).modules() if hasattr(module, "_hf_hook")]
