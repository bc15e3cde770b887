"""A small result on its way from the device to the host, while the device and the calling thread go on."""

from collections.abc import Callable

import torch
from torch import Tensor

from pipeline.pacing import Event


class HostCopy:
    """Queues the copy of `tensor` behind what computes it; nothing may write to `tensor` afterwards.

    From a GPU it goes to pinned memory, the only kind that a copy does not make the CPU wait for, and an event behind
    it says when it has arrived. On the CPU the tensor is the copy.
    """

    def __init__(self, tensor: Tensor, event: Callable[[], Event] | None = None) -> None:
        on_gpu = tensor.device.type == "cuda"
        event = event or (_sleeping_event if on_gpu else None)
        self._host = tensor
        self._arrived: Event | None = None
        if event is not None:
            self._host = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=on_gpu)
            self._host.copy_(tensor, non_blocking=True)
            self._arrived = event()
            with torch.cuda.device_of(tensor):  # in the stream of this device, which need not be the current one
                self._arrived.record()

    def wait(self) -> Tensor:
        """The tensor in host memory. Blocks until it is there; any thread may wait."""
        if self._arrived is not None:
            self._arrived.synchronize()
        return self._host


def _sleeping_event() -> Event:
    """Its `synchronize` puts the thread to sleep; by default CUDA lets it spin, on a core that launches kernels."""
    event: Event = torch.cuda.Event(blocking=True)
    return event
