"""How much memory of its GPU this generator process uses. Asks torch only where a renderer has loaded it."""

import sys
from typing import Any

from server.generator.state import GpuMemory


def gpu_memory() -> tuple[GpuMemory, ...]:
    """Of the current CUDA device; nothing without one. `peak_bytes`: the most that torch's allocator has reserved."""
    torch: Any = sys.modules.get("torch")
    try:
        if torch is None or not torch.cuda.is_initialized():
            return ()
        device = torch.cuda.current_device()
        free, total = torch.cuda.mem_get_info(device)
        peak = torch.cuda.max_memory_reserved(device)
    except (RuntimeError, AttributeError):  # the driver does not tell, or another thread is still importing torch
        return ()
    return (GpuMemory(gpu=device, used_bytes=total - free, peak_bytes=peak, total_bytes=total),)
