"""Starting a generator process: by the worker, and by rank 0 for the other ranks."""

import os
import socket
import subprocess
import sys

from server.generator.messages import Channel, FromGenerator, from_generator


def start_generator_process() -> tuple[subprocess.Popen[bytes], Channel[FromGenerator]]:
    """The process and our end of its pipe. The process ends with the thread that calls this."""
    ours, theirs = socket.socketpair()
    command = [sys.executable, "-m", "server.generator.child.process", str(theirs.fileno()), str(os.getpid())]
    with theirs:
        try:
            process = subprocess.Popen(command, pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL)
        except OSError:
            ours.close()
            raise
    return process, Channel(ours, from_generator)
