"""What the streaming of weights needs of a device: buffers, and copies beside the computing.

`Mark`: a point in the work of a device. Marks order its work without the host waiting for it.
"""

from typing import Protocol

import torch
from torch import Tensor


class Mark(Protocol):
    """`torch.cuda.Event`, recorded."""

    def synchronize(self) -> None:
        """The host waits until the device has got there."""


class DeviceCopies(Protocol):
    """Buffers are uint8 [size]. `copy` is called by the copying thread alone, the others by the computing one."""

    device: torch.device

    def there(self, tensor: Tensor) -> Tensor:
        """`tensor` on the device. The host waits for it."""

    def staging(self, size: int) -> Tensor:
        """On the host, where the device can read it by itself."""

    def buffer(self, size: int) -> Tensor:
        """On the device."""

    def launched(self) -> Mark:
        """Where everything is done that was launched to compute so far."""

    def copy(self, target: Tensor, source: Tensor, after: Mark) -> Mark:
        """Staging -> device, begun after `after`; returns where it is done."""

    def wait(self, mark: Mark) -> None:
        """What is launched to compute from now on begins after `mark`."""


def copies_to(device: torch.device) -> DeviceCopies:
    return CudaCopies(device) if device.type == "cuda" else HostCopies()


class CudaCopies:
    """On a stream of their own."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._stream = torch.cuda.Stream(device)

    def there(self, tensor: Tensor) -> Tensor:
        return tensor.to(self.device)

    def staging(self, size: int) -> Tensor:
        return torch.empty(size, dtype=torch.uint8, pin_memory=True)

    def buffer(self, size: int) -> Tensor:
        return torch.empty(size, dtype=torch.uint8, device=self.device)

    def launched(self) -> Mark:
        mark = torch.cuda.Event()
        mark.record(torch.cuda.current_stream(self.device))
        return mark

    def copy(self, target: Tensor, source: Tensor, after: Mark) -> Mark:
        mark = torch.cuda.Event(blocking=True)  # a thread that waits for it sleeps
        with torch.cuda.stream(self._stream):
            self._stream.wait_event(after)
            target.copy_(source, non_blocking=True)
            mark.record(self._stream)
        return mark

    def wait(self, mark: Mark) -> None:
        torch.cuda.current_stream(self.device).wait_event(mark)


class HostCopies:
    """The CPU as the device: every call returns when its work is done, and the copying thread computes nothing."""

    device = torch.device("cpu")

    def there(self, tensor: Tensor) -> Tensor:
        return tensor

    def staging(self, size: int) -> Tensor:
        return torch.empty(size, dtype=torch.uint8)

    def buffer(self, size: int) -> Tensor:
        return torch.empty(size, dtype=torch.uint8)

    def launched(self) -> Mark:
        return _Past()

    def copy(self, target: Tensor, source: Tensor, after: Mark) -> Mark:  # noqa: ARG002 - it is past
        target.copy_(source)
        return _Past()

    def wait(self, mark: Mark) -> None:
        pass


class _Past:
    def synchronize(self) -> None:
        pass
