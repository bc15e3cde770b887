"""Starting a generator process: by the worker, and by rank 0 for the other ranks."""

import os
import socket
import subprocess
import sys


def start_generator_process() -> tuple[subprocess.Popen[bytes], socket.socket]:
    """The process and our end of its socket pair. The child dies with the thread that calls this."""
    ours, theirs = socket.socketpair()
    command = [sys.executable, "-m", "server.generator.child.process", str(theirs.fileno()), str(os.getpid())]
    with theirs:
        try:
            return subprocess.Popen(command, pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL), ours
        except OSError:
            ours.close()
            raise
