"""The processes that work on one request together ("ranks"), each with a GPU of its own, on one machine."""

import os
import sys
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

_LOOPBACK = "lo0" if sys.platform == "darwin" else "lo"


class Ranks:
    """All of them, seen from one. Made once per process, by all at the same time.

    Tensors of the model travel by NCCL between GPUs and by gloo between CPUs, what the ranks agree on always by gloo:
    no GPU is waited for. Everybody must make the same calls in the same order; who waits for longer than `timeout_s`
    raises.
    """

    def __init__(self, *, rank: int, count: int, store: dist.Store, device: torch.device, timeout_s: float) -> None:
        for library in ("GLOO", "NCCL"):  # they would listen on the network
            os.environ.setdefault(f"{library}_SOCKET_IFNAME", _LOOPBACK)
        self.rank, self.count = rank, count
        self._device = device
        timeout = timedelta(seconds=timeout_s)
        dist.init_process_group("gloo", store=store, rank=rank, world_size=count, timeout=timeout)
        backend = "nccl" if device.type == "cuda" else "gloo"

        def connect(groups: Sequence[Sequence[int]]) -> Any:
            """The group of this rank, of groups that have no member in common."""
            own = [dist.new_group(list(members), timeout=timeout, backend=backend) for members in groups][
                next(index for index, members in enumerate(groups) if rank in members)
            ]
            # The first exchange makes the connection: what is wrong with it is known before there is a request.
            sent = torch.zeros(1, device=device)
            dist.all_gather_single(sent.new_empty(own.size()), sent, group=own)
            return own

        self.all = connect([range(count)])
        half = count // 2
        if count % 2 == 0:  # `half` and its counterparts in the other half
            self.half = connect([range(half), range(half, count)])
            self.pair = connect([(low, low + half) for low in range(half)])

    def any(self, flag: bool) -> bool:
        """Whether any rank says yes."""
        votes = torch.tensor([flag], dtype=torch.int32)
        dist.all_reduce(votes, dist.ReduceOp.MAX)
        return bool(votes)

    def as_first(self, value: Tensor) -> Tensor:
        """What rank 0 has; elsewhere `value` only says which shape and dtype that is."""
        shared = value.cpu().clone(memory_format=torch.contiguous_format)
        dist.broadcast(shared, 0)
        return shared.to(value.device)
