"""The ring under a fake device: what waits for what, how long it takes, and how much memory it has."""

import itertools
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor

from pipeline.memory.block_ring import BlockRing
from pipeline.memory.device_copies import HostCopies, Mark

BLOCKS = 6
BYTES = 512


@dataclass(frozen=True)
class _At:
    """A time on the fake device."""

    time: float

    def synchronize(self) -> None:
        assert threading.current_thread().name == "block copier", "the computing thread waited for the device"


class Device(HostCopies):
    """Two queues with a clock each, as a GPU has streams. Copies take `copy_times`, one after the other."""

    def __init__(self, *copy_times: float) -> None:
        self.copy_times = itertools.cycle(copy_times or (0.0,))
        self.computed = self.copied = 0.0
        self.copies = 0
        self.allocated: dict[str, list[int]] = {"staging": [], "buffer": []}

    def staging(self, size: int) -> Tensor:
        self.allocated["staging"].append(size)
        return super().staging(size)

    def buffer(self, size: int) -> Tensor:
        self.allocated["buffer"].append(size)
        return super().buffer(size)

    def launched(self) -> Mark:
        return _At(self.computed)

    def copy(self, target: Tensor, source: Tensor, after: Mark) -> Mark:
        assert isinstance(after, _At)
        super().copy(target, source, after)
        self.copies += 1
        self.copied = max(self.copied, after.time) + next(self.copy_times)
        return _At(self.copied)

    def wait(self, mark: Mark) -> None:
        assert isinstance(mark, _At)
        self.computed = max(self.computed, mark.time)

    def compute(self, duration: float) -> None:
        self.computed += duration


@contextmanager
def ring_on(device: HostCopies, count: int = BLOCKS) -> Iterator[BlockRing]:
    """Block i holds i and -i, in two dtypes."""
    blocks = [
        [torch.full((BYTES // 4,), float(i)), torch.full((3, 5), -i, dtype=torch.bfloat16), torch.tensor(float(i))]
        for i in range(count)
    ]
    ring = BlockRing(blocks, device)
    try:
        yield ring
    finally:
        ring.close()


def use(ring: BlockRing, index: int, compute: Callable[[], None] = lambda: None) -> None:
    first, second, third = ring.acquire(index)
    assert (first == index).all()
    assert (second == -index).all()
    assert second.shape == (3, 5)
    assert third == index
    compute()
    ring.release(index)


def test_copies_hide_behind_computing() -> None:
    device = Device(0.95)
    with ring_on(device) as ring:
        for _ in range(4):
            ring.prefetch()
            for index in range(BLOCKS):
                use(ring, index, lambda: device.compute(1.0))
    assert device.computed == pytest.approx(0.95 + 4 * BLOCKS)


def test_a_copy_that_is_late_once_is_made_up_for() -> None:
    """Double blocks are copied for longer than they compute, single blocks for less."""
    device = Device(1.5, 0.5, 0.5, 1.5, 0.5, 0.5)
    with ring_on(device) as ring:
        for index in [*range(BLOCKS)] * 2:
            use(ring, index, lambda: device.compute(1.0))
    assert device.computed == pytest.approx(1.5 + 2 * BLOCKS)


def test_a_bus_that_is_too_slow_never_idles() -> None:
    device = Device(2.0)
    with ring_on(device) as ring:
        for index in [*range(BLOCKS)] * 2:
            use(ring, index, lambda: device.compute(1.0))
    assert device.computed == pytest.approx(2 * BLOCKS * 2.0 + 1.0)


def test_cached_steps_copy_nothing_and_the_next_full_one_does_not_wait() -> None:
    device = Device(0.5)
    with ring_on(device) as ring:
        for index in range(BLOCKS):
            use(ring, index, lambda: device.compute(1.0))
        for _ in range(5):
            ring.prefetch()
            use(ring, BLOCKS - 1, lambda: device.compute(1.0))
        assert device.copies <= BLOCKS + 2  # and the first two of the next pass
        for index in range(BLOCKS):
            use(ring, index, lambda: device.compute(1.0))
    assert device.computed == pytest.approx(0.5 + 2 * BLOCKS + 5)


def test_memory_is_that_of_the_ring_whatever_happens() -> None:
    device = Device()
    with ring_on(device, count=20) as ring:
        for index in [*range(20), 7, 19, 0, *range(20)]:
            use(ring, index)
    assert {kind: len(sizes) for kind, sizes in device.allocated.items()} == {"staging": 2, "buffer": 3}
    assert {size for sizes in device.allocated.values() for size in sizes} == {3 * BYTES}


@pytest.mark.parametrize("count", [1, 2, 3])
def test_few_blocks_are_copied_once(count: int) -> None:
    device = Device()
    with ring_on(device, count=count) as ring:
        for index in [*range(count)] * 3:
            use(ring, index)
    assert device.copies == count


def test_a_cleared_ring_begins_again() -> None:
    device = Device()
    with ring_on(device) as ring:
        for last in range(BLOCKS):
            for index in range(last + 1):
                use(ring, index)
            ring.clear()
            ring.prefetch()
            ring.clear()
    assert len(device.allocated["staging"]) == 2


@pytest.mark.parametrize("failing", range(1, 8))
def test_a_failed_copy_reaches_the_one_who_needs_the_block(failing: int) -> None:
    class Failing(Device):
        def copy(self, *arguments: Any, **options: Any) -> Mark:
            mark = super().copy(*arguments, **options)
            if self.copies == failing:
                raise OSError("the disk is gone")
            return mark

    device = Failing()
    with ring_on(device) as ring:
        with pytest.raises(OSError, match="the disk is gone"):
            for index in [*range(BLOCKS)] * 2:
                use(ring, index)
        assert index == (failing - 1) % BLOCKS
        for index in [*range(BLOCKS)] * 2:
            use(ring, index)


@pytest.mark.parametrize("kind", ["staging", "buffer"])
def test_without_memory_for_the_ring_the_caller_knows(kind: str) -> None:
    class Full(Device):
        full = True

        def staging(self, size: int) -> Tensor:
            return self._allocate("staging", size)

        def buffer(self, size: int) -> Tensor:
            return self._allocate("buffer", size)

        def _allocate(self, of: str, size: int) -> Tensor:
            if self.full and of == kind:
                raise torch.OutOfMemoryError
            return torch.empty(size, dtype=torch.uint8)

    device = Full()
    with ring_on(device) as ring:
        for _ in range(2):
            with pytest.raises(torch.OutOfMemoryError):
                ring.prefetch()
        device.full = False
        use(ring, 0)


def test_closing_ends_the_thread() -> None:
    before = set(threading.enumerate())
    with ring_on(Device()) as ring:
        use(ring, 0)
        assert {thread.name for thread in set(threading.enumerate()) - before} == {"block copier"}
    assert set(threading.enumerate()) <= before
