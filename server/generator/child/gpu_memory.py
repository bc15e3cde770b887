"""How much memory of its GPU this generator process uses. Asks torch only where a renderer has loaded it."""

import sys
from typing import Any

from server.generator.state import GpuMemory


def gpu_memory() -> tuple[GpuMemory, ...]:
    """Of the current CUDA device; nothing without one. `peak_bytes`: the most that torch's allocator has reserved."""
    torch: Any = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_initialized():
        return ()
    device = torch.cuda.current_device()
    try:
        free, total = torch.cuda.mem_get_info(device)
    except RuntimeError:  # the driver does not tell: no reason to lose a video
        return ()
    peak = torch.cuda.max_memory_reserved(device)
    return (GpuMemory(gpu=device, used_bytes=total - free, peak_bytes=peak, total_bytes=total),)
