"""How a generator process finds its GPU and the ranks it works with. Imports torch: only renderers import this."""

from datetime import timedelta

import torch
import torch.distributed as dist

from pipeline.parallel.ranks import Ranks
from server.generator.messages import Load


def own_device(load: Load) -> torch.device:
    """With several ranks, the GPU of this one."""
    device = torch.device(load.generator.device)
    if load.rendezvous is None or device.type != "cuda":
        return device
    own = torch.device("cuda", load.rank)
    torch.cuda.set_device(own)  # where NCCL and CUDA events look
    return own


def connected_ranks(load: Load, device: torch.device) -> Ranks | None:
    """The ranks that render together; None for a process on its own."""
    if load.rendezvous is None:
        return None
    limits = load.generator
    store = dist.TCPStore(
        "127.0.0.1",
        load.rendezvous.port,
        is_master=load.rank == 0,
        timeout=timedelta(seconds=limits.load_timeout_s),
        wait_for_workers=False,
        master_listen_fd=load.rendezvous.listener,
    )
    # The worker's own limits come first: it kills a generator that is silent for so long.
    timeout_s = max(limits.first_block_timeout_s, limits.stall_timeout_s)
    return Ranks(rank=load.rank, count=limits.ranks, store=store, device=device, timeout_s=timeout_s)
