"""What a generator process begins before its libraries are imported, which takes it seconds.

Imports keep one processor busy and the GPU and the disk idle: the weights come into the page cache and the GPU gets its
context meanwhile. Imports nothing heavy itself.
"""

import gc
import logging
import os
import threading
from collections.abc import Callable, MutableMapping
from pathlib import Path
from typing import Final

from server.generator.messages import Load
from weights.disk import read_ahead

logger = logging.getLogger(__name__)

_ALLOCATOR: Final = ("PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF", "PYTORCH_HIP_ALLOC_CONF")
"""Where torch 2.13 looks for the allocator's options: the first, and two older names it still knows."""


def begin(load: Load) -> None:
    """Call once, before anything imports torch."""
    # Hundreds of thousands of objects are made that stay; looking for garbage among them costs a sixth of the imports.
    gc.disable()
    folder = Path(load.generator.model)
    if folder.is_dir():
        _in_background(lambda: read_ahead(folder.rglob("*.safetensors")))
    if load.generator.device.startswith("cuda"):
        allow_expandable_segments(os.environ)
        _in_background(lambda: _open_gpu(load))


def end() -> None:
    """The model is loaded: what is in use now stays, and is not looked through for garbage again."""
    gc.collect()
    gc.freeze()
    gc.enable()


def allow_expandable_segments(environment: MutableMapping[str, str]) -> None:
    """Let torch's allocator grow and shrink its segments: clips of different sizes then share the same memory.

    With segments of fixed size, what a long clip leaves in the cache may fit no request of the next one. An option that
    the operator has set decides.
    """
    if not any(environment.get(name) for name in _ALLOCATOR):
        environment[_ALLOCATOR[0]] = "expandable_segments:True"


def _open_gpu(load: Load) -> None:
    """Create the context of the GPU that this rank will use (see `own_device`)."""
    import torch

    torch.empty(1, device=f"cuda:{load.rank}" if load.rendezvous is not None else load.generator.device)


def _in_background(work: Callable[[], None]) -> None:
    def run() -> None:
        try:
            work()
        except Exception as error:  # loading meets the same fault and says what it means
            logger.debug("head start: %s", error)

    threading.Thread(target=run, name="head-start", daemon=True).start()
