"""The processes that work on one request together ("ranks"), each with a GPU of its own, on one machine."""

import os
import sys
from collections.abc import Sequence
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor

_LOOPBACK = "lo0" if sys.platform == "darwin" else "lo"


class Ranks:
    """The groups that one rank is in. Created once per process, by all processes at the same time.

    Tensors of the model are exchanged by NCCL between GPUs and by gloo between CPUs; what the ranks agree on always by
    gloo, which waits for no GPU. All ranks must make the same calls in the same order; a call that waits for longer
    than `timeout_s` raises.
    """

    def __init__(self, *, rank: int, count: int, store: dist.Store, device: torch.device, timeout_s: float) -> None:
        for library in ("GLOO", "NCCL"):  # by default they listen on the network
            os.environ.setdefault(f"{library}_SOCKET_IFNAME", _LOOPBACK)
        self.rank, self.count = rank, count
        timeout = timedelta(seconds=timeout_s)
        dist.init_process_group("gloo", store=store, rank=rank, world_size=count, timeout=timeout)
        backend = "nccl" if device.type == "cuda" else "gloo"

        def connect(groups: Sequence[Sequence[int]]) -> dist.ProcessGroup | None:
            """The group that this rank is in; None where groups have one member each."""
            if len(groups) in {0, count}:
                return None
            made = [dist.new_group(list(members), timeout=timeout, backend=backend) for members in groups]
            own = next(group for group, members in zip(made, groups, strict=True) if rank in members)
            # The first exchange connects the ranks: a fault shows here and not in the first request.
            sent = torch.zeros(1, device=device)
            received = sent.new_empty(own.size())
            dist.all_gather_single(received, sent, group=own)
            received.tolist()  # waits for the GPU
            return own

        halves = [range(count // 2), range(count // 2, count)] if count % 2 == 0 else []
        self.all = connect([range(count)])
        self.half = connect(halves)
        self.pair = connect(list(zip(*halves, strict=True)))  # this rank and its counterpart in the other half
        for other in range(1, count):
            if rank == other:
                self.send_to_first(torch.zeros(1, device=device)).wait()
            elif rank == 0:
                self.receive(torch.empty(1, device=device), other).tolist()

    def any(self, flag: bool) -> bool:
        """Whether `flag` is true on any rank."""
        votes = torch.tensor([flag], dtype=torch.int32)
        dist.all_reduce(votes, dist.ReduceOp.MAX)
        return bool(votes)

    def send_to_first(self, tensor: Tensor) -> dist.Work:
        """To rank 0, which has to `receive` it; `tensor` is to be kept until the result was waited for."""
        return dist.isend(tensor, 0, group=self.all)

    def receive(self, tensor: Tensor, rank: int) -> Tensor:
        """What that rank sent to this one, rank 0, in `tensor`."""
        dist.recv(tensor, rank, group=self.all)
        return tensor

    def allow(self, rank: int, flag: bool) -> tuple[dist.Work, Tensor]:
        """Rank 0 answers the next `allowed` of that rank, without waiting: both results are to be kept until then."""
        vote = torch.tensor([flag], dtype=torch.int32)
        return dist.isend(vote, rank), vote

    def allowed(self) -> bool:
        """What rank 0 answers."""
        vote = torch.empty(1, dtype=torch.int32)
        dist.recv(vote, 0)
        return bool(vote)

    def total(self, value: Tensor) -> Tensor:
        """The sum of a CPU tensor [n,...] over all ranks. All add the same values in the same order: the same bits."""
        parts = value.new_empty(self.count * len(value), *value.shape[1:])
        dist.all_gather_single(parts, value)
        return parts.unflatten(0, (self.count, -1)).sum(0)

    def as_first(self, value: Tensor) -> Tensor:
        """Rank 0's value, on all ranks; on the others `value` only gives shape and dtype."""
        shared = value.cpu().clone(memory_format=torch.contiguous_format)
        dist.broadcast(shared, 0)
        return shared.to(value.device)
