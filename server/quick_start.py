"""A process that starts imports much and throws nothing away: looking for garbage meanwhile is a sixth of its start."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def uncollected() -> Iterator[None]:
    """No garbage collection in this block; what is there at its end is not looked through by later ones either."""
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()
