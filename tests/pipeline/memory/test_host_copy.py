"""The order of a copy from the GPU, with an event that stands for CUDA's."""

import threading
from typing import Any

import pytest
import torch
from torch import Tensor

from pipeline.memory.host_copy import HostCopy


class Event:
    """Remembers which thread waited for it."""

    def __init__(self) -> None:
        self.waited: list[threading.Thread] = []
        self.recorded = False

    def record(self) -> None:
        self.recorded = True

    def synchronize(self) -> None:
        assert self.recorded
        self.waited.append(threading.current_thread())


def test_only_the_thread_that_wants_the_result_waits() -> None:
    event, tensor = Event(), torch.arange(6, dtype=torch.uint8).view(2, 3)
    copy = HostCopy(tensor, lambda: event)
    assert event.recorded
    assert not event.waited
    got: list[Tensor] = []
    reader = threading.Thread(target=lambda: got.append(copy.wait()))
    reader.start()
    reader.join()
    assert event.waited == [reader]
    assert torch.equal(got[0], tensor)
    assert got[0].data_ptr() != tensor.data_ptr()


def test_the_event_is_behind_the_copy(monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []
    copied = Tensor.copy_

    def copy(*given: Any, **options: Any) -> Tensor:
        order.append("copy")
        return copied(*given, **options)

    monkeypatch.setattr(Tensor, "copy_", copy)
    event = Event()
    monkeypatch.setattr(event, "record", lambda: order.append("event"))
    HostCopy(torch.ones(1), lambda: event)
    assert order == ["copy", "event"]
