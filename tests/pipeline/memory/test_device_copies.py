"""What is asked of CUDA, in which order. The results need a GPU; see `hunyuan-custom bench model`."""

from contextlib import contextmanager
from typing import Any

import pytest
import torch

from pipeline.memory.device_copies import CudaCopies

GPU = torch.device("cuda", 1)


def test_a_copy_is_ordered_by_marks_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    class Stream:
        def __init__(self, device: torch.device, name: str = "copy stream") -> None:
            assert device == GPU
            self.name = name

        def wait_event(self, event: Any) -> None:
            asked.append(f"{self.name} waits for {event.name}")

    class Event:
        name = "mark"

        def __init__(self, *, blocking: bool = False) -> None:
            self.blocking = blocking

        def record(self, stream: Stream) -> None:
            asked.append(f"{stream.name} marks")

    class Target:
        def copy_(self, source: Any, *, non_blocking: bool) -> None:
            asked.append(f"copies {source}, non_blocking={non_blocking}")

    @contextmanager
    def on(stream: Stream) -> Any:
        asked.append(f"on {stream.name}:")
        yield
        asked.append("end")

    monkeypatch.setattr(torch.cuda, "Stream", Stream)
    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "stream", on)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: Stream(device, "compute stream"))
    copies, target, source = CudaCopies(GPU), Target(), "weights"
    free = copies.launched()
    mark: Any = copies.copy(target, source, after=free)
    copies.wait(mark)
    assert asked == [
        "compute stream marks",
        "on copy stream:",
        "copy stream waits for mark",
        "copies weights, non_blocking=True",
        "copy stream marks",
        "end",
        "compute stream waits for mark",
    ]
    assert mark.blocking, "the copying thread waits for it before it fills the staging buffer again"
