"""What a generator says of its GPU's memory, with a stand-in for CUDA: there is no GPU where tests run."""

import sys
from types import ModuleType, SimpleNamespace

import pytest

from server.generator.child.gpu_memory import gpu_memory
from server.generator.messages import Finished, from_generator
from server.generator.state import GpuMemory


def cuda(**calls: object) -> SimpleNamespace:
    found = {"is_initialized": lambda: True, "current_device": lambda: 1, "max_memory_reserved": lambda _device: 30}
    return SimpleNamespace(cuda=SimpleNamespace(**{**found, "mem_get_info": lambda _device: (60, 100), **calls}))


def test_it_reaches_the_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", cuda())
    told = Finished(seconds=1.0, gpu_memory=gpu_memory())
    assert from_generator.validate_json(told.model_dump_json()) == told
    assert told.gpu_memory == (GpuMemory(gpu=1, used_bytes=40, peak_bytes=30, total_bytes=100),)


def _does_not_tell(_device: int) -> tuple[int, int]:
    raise RuntimeError("CUDA driver error")


@pytest.mark.parametrize(
    "torch",
    [None, ModuleType("torch"), cuda(is_initialized=lambda: False), cuda(mem_get_info=_does_not_tell)],
    ids=["not imported", "being imported", "not initialized", "without an answer"],
)
def test_without_a_gpu_that_tells_nothing_is_said(monkeypatch: pytest.MonkeyPatch, torch: object) -> None:
    monkeypatch.setitem(sys.modules, "torch", torch)
    assert gpu_memory() == ()
