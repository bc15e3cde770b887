"""The memory plan `stream_blocks`: a few transformer blocks on the device at a time, every other model while it works.

LLaVA has several tasks before the transformer's turn: once there, it stays until the next model needs the room.

Done by accelerate's `ModelHook`s, which `placement.onloaded` runs. Tensors of a model keep their identity: their
`data` is exchanged, and going back is free because weights are never written to.
"""

import weakref
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from accelerate.hooks import ModelHook
from torch import Tensor, nn

from pipeline.memory.block_ring import BlockRing
from pipeline.memory.device_copies import DeviceCopies
from pipeline.memory.host_layers import moved_tensors


class Turns:
    """Which of the whole models may stay on the device while it is idle: the one that had the last turn."""

    def __init__(self) -> None:
        self._last: _WholeModel | None = None

    def take(self, model: "_WholeModel | None") -> None:
        """It is the turn of `model`, or of the transformer: the one before leaves."""
        before, self._last = self._last, model
        if before is not None and before is not model:
            before.leave()

    def is_of(self, model: "_WholeModel") -> bool:
        return self._last is model


def stream_blocks(transformer: nn.Module, copies: DeviceCopies, turns: Turns | None = None) -> BlockRing:
    """The blocks of `transformer` (on the CPU) pass through a ring of buffers; its other weights stay on the device.

    `turns`: shared with the models of `onload_in_turn`, which leave before a block comes.

    Each branch of a step loads every block: 18 GB take the bus 0.33 s while the branch computes for 3.7 s (512p,
    81 frames, one H100). To share a block, the branches would have to run side by side through the whole transformer.
    """
    blocks = [*transformer.transformer_blocks, *transformer.single_transformer_blocks]
    ring = BlockRing([[tensor.data for tensor in moved_tensors(block)] for block in blocks], copies)
    for index, block in enumerate(blocks):
        block._hf_hook = _StreamedBlock(ring, index, moved_tensors(block))
    within = {id(tensor) for block in blocks for tensor in moved_tensors(block)}
    for tensor in moved_tensors(transformer):
        if id(tensor) not in within:
            tensor.data = copies.there(tensor.data)
    transformer._hf_hook = _Transformer(ring, turns or Turns(), copies.device)
    weakref.finalize(transformer, ring.close)
    return ring


def onload_in_turn(
    model: nn.Module, copies: DeviceCopies, turns: Turns, *, make_room: Callable[[], None], stays: bool = False
) -> None:
    """`model` is on the device as a whole while it works; `make_room` is called before.

    stays: between two of its tasks as well, as long as it is nobody else's turn.
    """
    model._hf_hook = _WholeModel(copies, moved_tensors(model), turns, make_room, stays=stays)


class _Transformer(ModelHook):
    def __init__(self, ring: BlockRing, turns: Turns, device: torch.device) -> None:
        self.execution_device = device  # diffusers looks here for the device of the pipeline
        self._ring = ring
        self._turns = turns

    def pre_forward(self, _module: nn.Module, *args: Any, **kwargs: Any) -> Any:
        self._turns.take(None)
        self._ring.prefetch()
        return args, kwargs


class _StreamedBlock(ModelHook):
    def __init__(self, ring: BlockRing, index: int, tensors: Sequence[Tensor]) -> None:
        self._ring = ring
        self._index = index
        self._tensors = tensors
        self._home = [tensor.data for tensor in tensors]

    def pre_forward(self, _module: nn.Module, *args: Any, **kwargs: Any) -> Any:
        _exchange(self._tensors, self._ring.acquire(self._index))
        return args, kwargs

    def post_forward(self, _module: nn.Module, output: Any) -> Any:
        _exchange(self._tensors, self._home)
        self._ring.release(self._index)
        return output


class _WholeModel(ModelHook):
    def __init__(
        self,
        copies: DeviceCopies,
        tensors: Sequence[Tensor],
        turns: Turns,
        make_room: Callable[[], None],
        *,
        stays: bool,
    ) -> None:
        self.execution_device = copies.device
        self._copies = copies
        self._tensors = tensors
        self._home = [tensor.data for tensor in tensors]
        self._turns = turns
        self._make_room = make_room
        self._stays = stays
        self._is_there = False
        self._users = 0  # a generator of frames that was given up may end after the next has begun

    def pre_forward(self, _module: nn.Module, *args: Any, **kwargs: Any) -> Any:
        self._turns.take(self)
        self._make_room()
        if not self._is_there:
            self._is_there = True
            try:
                _exchange(self._tensors, map(self._copies.there, self._home))
            except BaseException:
                self.leave()
                raise
        self._users += 1
        return args, kwargs

    def post_forward(self, _module: nn.Module, output: Any) -> Any:
        self._users -= 1
        if not (self._stays and self._turns.is_of(self)):
            self.leave()
        return output

    def leave(self) -> None:
        """Unless it is at work: then at the end of that."""
        if self._is_there and self._users == 0:
            self._is_there = False
            _exchange(self._tensors, self._home)
            torch.cuda.empty_cache()  # in pieces of this model's layers it is of no use to the next


def _exchange(tensors: Sequence[Tensor], data: Iterable[Tensor]) -> None:
    for tensor, new in zip(tensors, data, strict=True):
        tensor.data = new
