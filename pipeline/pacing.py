"""Keeps the CPU close to the GPU: kernels are only queued, and a queue of blocks knows neither progress nor cancel."""

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
    """Called after every block: waits until all but the latest two are done. On the CPU nothing is ever queued."""

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
