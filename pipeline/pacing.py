"""Keeps the CPU at most two blocks ahead of the GPU.

Launching a kernel only queues it. Without a limit the CPU would queue whole steps in advance: progress would be
reported before the work is done, and a cancel would wait for all that is queued.
"""

from collections import deque
from collections.abc import Callable
from typing import Protocol

import torch

_BLOCKS_AHEAD = 2  # enough to keep the GPU busy while the CPU prepares the next block


class Event(Protocol):
    """`torch.cuda.Event`."""

    def record(self) -> None: ...

    def synchronize(self) -> None: ...


class Pacer:
    """Called after every block: waits until all but the latest two have been computed. On the CPU nothing is queued."""

    def __init__(self, device: torch.device, event: Callable[[], Event] | None = None) -> None:
        self._event = event or (torch.cuda.Event if device.type == "cuda" else None)
        self._pending: deque[Event] = deque()

    def __call__(self) -> None:
        if self._event is None:
            return
        event = self._event()
        event.record()
        self._pending.append(event)
        if len(self._pending) > _BLOCKS_AHEAD:
            self._pending.popleft().synchronize()
