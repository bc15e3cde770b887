"""Compiled passes where they can be had: what cannot be compiled, or computes something else, runs as it is."""

import logging
import time
from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import Tensor

logger = logging.getLogger(__name__)

P = TypeVar("P")


def compiled_or_eager(what: str, *, eager: P, compiled: Callable[[], P]) -> P:
    """What `compiled` compiles and compares; `eager` after one warning where that fails: slower, but no failed job.

    Compilers raise nearly everything for want of a C compiler or of Triton. Raises what is not their fault: no memory,
    a broken device.
    """
    started = time.perf_counter()
    try:
        passes = compiled()
    except (torch.OutOfMemoryError, torch.AcceleratorError):
        raise
    except Exception as error:
        logger.warning("%s run in eager torch, slower: %s", what, one_line(error))
        return eager
    logger.info("%s compiled in %.1f s", what, time.perf_counter() - started)
    return passes


def plain(argument: Any) -> Any:
    """Of a view or a parameter the compiler knows what it belongs to, and would compile again for each such kind."""
    return argument.detach() if isinstance(argument, Tensor) else argument


def one_line(error: BaseException) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"[:300]
