"""Weights of transformer blocks on their way to the device and through it: from mapped files, a few blocks at a time.

    file (mapped) --copying thread--> staging, pinned --copy stream--> buffer on the device, read by the block

While one block computes, the next two are copied. No buffer is allocated on the way, and the host waits for the device
only on the copying thread. Host memory is that of the staging buffers: the files stay in the page cache, where several
processes share them and the system may drop them.
"""

import itertools
import threading
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from pipeline.memory.device_copies import DeviceCopies, Mark

BUFFERS = 3  # one is computed with, two are copied to: a copy has the time of two blocks before it is late
STAGING = 2  # one is filled while the other is sent
_ALIGNMENT = 512  # bytes, as torch aligns what it allocates on a GPU


@dataclass(eq=False)
class _Buffer:
    """`free`: the end of what computed with its previous block. `loaded`: the end, or failure, of the copy."""

    memory: Tensor
    free: Mark
    block: int | None = None
    loaded: Mark | Exception | None = None


class BlockRing:
    """Lends blocks one at a time, by index. It expects them in order, the first after the last.

    Any other order costs a copy that is waited for, except that of the cached steps (`step_cache.py`): the last block
    repeats, and stays as long as it does.
    """

    def __init__(self, blocks: Sequence[Sequence[Tensor]], copies: DeviceCopies) -> None:
        """`blocks`: the tensors of each, on the host, never written to."""
        self._blocks = blocks
        self._copies = copies
        self._size = max(_offsets(tensors)[-1] for tensors in blocks)
        self._changed = threading.Condition()
        self._buffers: list[_Buffer] = []  # the one that is free for longest comes first
        self._expected: tuple[int, ...] = ()
        self._staging: list[Tensor] = []
        self._sent: list[Mark | None] = [None] * STAGING  # of each staging buffer: where it may be filled again
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="block copier", daemon=True)

    def prefetch(self) -> None:
        """Begin with the first blocks, unless others are there or on their way."""
        if not self._expected:
            self._expect(0)

    def acquire(self, index: int) -> list[Tensor]:
        """The tensors of a block on the device, until `release`. What was acquired before must have been released.

        Raises what went wrong when it was copied; the next try copies it again.
        """
        self._expect(index)
        with self._changed:
            while (settled := self._settled(index)) is None:
                self._changed.wait()
            buffer, loaded = settled
            if isinstance(loaded, Exception):
                buffer.block = buffer.loaded = None
                raise loaded
        self._copies.wait(loaded)
        return _views(buffer.memory, self._blocks[index])

    def release(self, index: int) -> None:
        """Everything that computes with the block has been launched."""
        with self._changed:
            buffer = next(buffer for buffer in self._buffers if buffer.block == index)
            buffer.free = self._copies.launched()
            self._buffers.remove(buffer)
            self._buffers.append(buffer)

    def clear(self) -> None:
        """Give the memory on the device back. Nothing may be acquired."""
        with self._changed:
            self._expected = ()
            self._changed.wait_for(
                lambda: all(buffer.block is None or buffer.loaded is not None for buffer in self._buffers)
            )
            for buffer in self._buffers:
                if buffer.loaded is not None and not isinstance(buffer.loaded, Exception):
                    self._copies.wait(buffer.loaded)  # its memory goes to what is computed next
            self._buffers = []

    def close(self) -> None:
        """End the thread."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        if self._thread.ident is not None and self._thread is not threading.current_thread():
            self._thread.join()

    def _expect(self, index: int) -> None:
        with self._changed:
            if not self._buffers:
                self._allocate()
            self._expected = tuple((index + ahead) % len(self._blocks) for ahead in range(len(self._buffers)))
            self._changed.notify_all()

    def _allocate(self) -> None:
        with torch.inference_mode(False):  # the thread may write to them
            if not self._staging:
                self._staging = [self._copies.staging(self._size) for _ in range(STAGING)]
            if self._thread.ident is None:
                self._thread.start()
            memory = [self._copies.buffer(self._size) for _ in range(min(BUFFERS, len(self._blocks)))]
        free = self._copies.launched()  # until then, what had the memory before may still use it
        self._buffers = [_Buffer(each, free) for each in memory]

    @torch.no_grad()
    def _run(self) -> None:
        for turn in itertools.cycle(range(STAGING)):
            if not self._copy_next(turn):
                return

    def _copy_next(self, turn: int) -> bool:
        """Wait for a block to be wanted and send it through staging buffer `turn`; False at the end."""
        with self._changed:
            self._changed.wait_for(lambda: self._closed or self._missing() is not None)
            index = self._missing()
            if self._closed or index is None:
                return False
            buffer = next(buffer for buffer in self._buffers if buffer.block not in self._expected)
            buffer.block, buffer.loaded = index, None
        loaded: Mark | Exception
        try:
            if (before := self._sent[turn]) is not None:
                before.synchronize()
            loaded = self._sent[turn] = self._send(index, self._staging[turn], buffer)
        except Exception as error:  # raised where the block is acquired
            loaded = error
        with self._changed:
            buffer.loaded = loaded
            self._changed.notify_all()
        return True

    def _settled(self, index: int) -> tuple[_Buffer, Mark | Exception] | None:
        found = ((buffer, buffer.loaded) for buffer in self._buffers if buffer.block == index)
        return next(((buffer, loaded) for buffer, loaded in found if loaded is not None), None)

    def _missing(self) -> int | None:
        there = {buffer.block for buffer in self._buffers}
        return next((index for index in self._expected if index not in there), None)

    def _send(self, index: int, staging: Tensor, buffer: _Buffer) -> Mark:
        tensors = self._blocks[index]
        for staged, tensor in zip(_views(staging, tensors), tensors, strict=True):
            staged.copy_(tensor)
        size = _offsets(tensors)[-1]
        return self._copies.copy(buffer.memory[:size], staging[:size], after=buffer.free)


def _offsets(tensors: Sequence[Tensor]) -> list[int]:
    """Where each begins in a buffer, and the end of the last: bytes."""
    sizes = (-(-tensor.nbytes // _ALIGNMENT) * _ALIGNMENT for tensor in tensors)
    return list(itertools.accumulate(sizes, initial=0))


def _views(memory: Tensor, tensors: Sequence[Tensor]) -> list[Tensor]:
    """Parts of `memory` with the dtypes and shapes of `tensors`."""
    return [
        memory[start : start + tensor.nbytes].view(tensor.dtype).view(tensor.shape)
        for tensor, start in zip(tensors, _offsets(tensors), strict=False)
    ]
