"""A child must not outlive its parent: an orphaned generator would keep the GPU's memory.

`python parent_death.py PARENT SIGNAL USER COMMAND...` does the same for any other program; see `tied`.
"""

import ctypes
import os
import signal
import sys
import threading
import time
from collections.abc import Sequence

_PR_SET_PDEATHSIG = 1  # linux/prctl.h
_POLL_S = 0.5


def die_with_parent(parent: int | None = None, *, number: signal.Signals = signal.SIGKILL) -> None:
    """Have this process killed when its parent dies; `parent` is what it was when this process was started.

    On Linux by the kernel, at once; the signal is tied to the parent's *thread* that started us, which therefore has
    to live as long as the parent. Elsewhere a thread looks twice a second.
    """
    if parent is None:
        parent = os.getppid()
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, number)
    else:
        threading.Thread(target=_watch, args=(parent,), daemon=True).start()
    if os.getppid() != parent:  # it died before we asked
        os._exit(1)


def tied(command: Sequence[str], *, number: signal.Signals = signal.SIGKILL, user: str = "") -> list[str]:
    """`command`, as one that gets a signal when this process dies, whatever program it runs.

    `user` is whom to run it as: changing the user later would undo the tie. On systems other than Linux the command
    runs without it.
    """
    return [sys.executable, "-I", "-S", __file__, str(os.getpid()), str(int(number)), user, *command]


def _watch(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(_POLL_S)
    os._exit(1)


def _become(user: str) -> None:
    import pwd

    entry = pwd.getpwnam(user)
    os.initgroups(user, entry.pw_gid)
    os.setgid(entry.pw_gid)
    os.setuid(entry.pw_uid)


def _main(parent: str, number: str, user: str, *command: str) -> None:
    if user:
        _become(user)
    die_with_parent(int(parent), number=signal.Signals(int(number)))
    os.execvp(command[0], command)  # noqa: S606 - the very point: the same process, another program


if __name__ == "__main__":
    _main(*sys.argv[1:])
