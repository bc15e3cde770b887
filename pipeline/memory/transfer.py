"""Weights from the files they are mapped to onto the GPU, several threads at a time.

A thread copies a part of a weight into pinned memory, from where the GPU fetches it while the thread copies the next
part. One thread reads about 5 GB a second from the page cache, a PCIe 5 GPU takes ten times as much.
"""

import os
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import nullcontext
from queue import SimpleQueue
from types import TracebackType
from typing import Final, Self

import numpy as np
import torch
from torch import Tensor, nn

from pipeline.memory.host_layers import moved_tensors

_MOST_THREADS: Final = 8
_STAGE_BYTES: Final = 16 * 2**20
_STAGES: Final = 2  # per thread: one is filled while the GPU fetches the other


class Transfer:
    """Moves modules to `device` while the caller goes on.

    A context: what `move` was called with is on the device when it ends, and its end raises what a copy raised.
    """

    def __init__(self, device: torch.device, *, threads: int | None = None) -> None:
        self._device = device
        count = threads or min(_MOST_THREADS, os.cpu_count() or 1)
        self._pool = ThreadPoolExecutor(count, thread_name_prefix="transfer")
        self._lanes: SimpleQueue[_Lane] = SimpleQueue()
        for _ in range(count):
            self._lanes.put(_Lane(device))
        self._begun: dict[int, Future[None]] = {}  # by the tensor's id: two modules may share one

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pool.shutdown(wait=True, cancel_futures=error is not None)
        if self._device.type == "cuda":
            torch.cuda.empty_cache()  # what casts needed belongs to the lanes' streams: of no use to others
        if error is None:
            for copied in self._begun.values():
                copied.result()

    def move(self, module: nn.Module, dtype: torch.dtype | None = None) -> None:
        """All but host layers; with a `dtype`, tensors of floating point become it, except for fp8 weights.

        They are on the device at once, with values only when this context has ended.
        """
        for tensor in moved_tensors(module):
            if id(tensor) not in self._begun:
                self._begun[id(tensor)] = self._begin(tensor, dtype)

    def _begin(self, tensor: Tensor, dtype: torch.dtype | None) -> Future[None]:
        source = tensor.detach().contiguous()
        casts = dtype is not None and source.is_floating_point() and source.itemsize > 1
        # Allocated on the stream that will use it, filled on a lane's.
        target = torch.empty_like(source, device=self._device, dtype=dtype if casts else source.dtype)
        tensor.data = target
        return self._pool.submit(self._copy, source, target)

    def _copy(self, source: Tensor, target: Tensor) -> None:
        lane = self._lanes.get()
        try:
            lane.copy(source, target)
        finally:
            self._lanes.put(lane)


class _Lane:
    """A stream of the device and the memory from which it is filled."""

    def __init__(self, device: torch.device) -> None:
        self._on_gpu = device.type == "cuda"
        self._stream = torch.cuda.Stream(device) if self._on_gpu else None
        self._stages = [torch.empty(_STAGE_BYTES, dtype=torch.uint8, pin_memory=self._on_gpu) for _ in range(_STAGES)]
        self._fetched = [torch.cuda.Event() for _ in range(_STAGES)] if self._on_gpu else []

    def copy(self, source: Tensor, target: Tensor) -> None:
        """Returns when `target` has the values of `source`, cast to its dtype."""
        with torch.no_grad(), nullcontext() if self._stream is None else torch.cuda.stream(self._stream):
            if self._stream is not None:  # the memory may have been another tensor's
                self._stream.wait_stream(torch.cuda.default_stream(target.device))
            if target.dtype == source.dtype:
                self._copy_bytes(source, target)
            else:
                stored = torch.empty_like(source, device=target.device)
                self._copy_bytes(source, stored)
                target.copy_(stored)
            if self._stream is not None:
                self._stream.synchronize()

    def _copy_bytes(self, source: Tensor, target: Tensor) -> None:
        read, write = _bytes(source).numpy(), _bytes(target)
        for turn, begin in enumerate(range(0, len(read), _STAGE_BYTES)):
            part = read[begin : begin + _STAGE_BYTES]
            stage = self._stages[turn % _STAGES][: len(part)]
            if self._fetched:
                self._fetched[turn % _STAGES].synchronize()  # at once, if it was never recorded
            np.copyto(stage.numpy(), part)  # by one thread, and without the interpreter's lock
            write[begin : begin + len(part)].copy_(stage, non_blocking=True)
            if self._fetched:
                self._fetched[turn % _STAGES].record()


def _bytes(tensor: Tensor) -> Tensor:
    """The tensor's memory, [nbytes] uint8."""
    return tensor.view(-1).view(torch.uint8)
