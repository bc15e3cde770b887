"""A child must not outlive its parent: an orphaned generator would keep the GPU's memory."""

import ctypes
import os
import signal
import sys
import threading
import time

_PR_SET_PDEATHSIG = 1  # linux/prctl.h
_POLL_S = 0.5


def die_with_parent(parent: int | None = None) -> None:
    """Have this process killed when its parent dies; `parent` is what it was when this process was started.

    On Linux by the kernel, at once; the signal is tied to the parent's *thread* that started us, which therefore has
    to live as long as the parent. Elsewhere a thread looks twice a second.
    """
    if parent is None:
        parent = os.getppid()
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    else:
        threading.Thread(target=_watch, args=(parent,), daemon=True).start()
    if os.getppid() != parent:  # it died before we asked
        os._exit(1)


def _watch(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(_POLL_S)
    os._exit(1)
