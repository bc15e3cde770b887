"""What large bodies leave behind in the process."""

import ctypes
from typing import Final

_M_MMAP_THRESHOLD: Final = -3  # malloc.h of glibc
_LARGE: Final = 2**20


def give_back_large_blocks() -> None:
    """From now on freed blocks of more than 1 MiB are the system's again.

    By itself glibc takes blocks up to 32 MiB from the heap once one as large has been freed, and the heap of a process
    that had a body of 30 MB never becomes small again. Does nothing with another C library.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, _LARGE)
