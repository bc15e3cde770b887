"""Starting a generator process: by the worker, and by rank 0 for the other ranks."""

import os
import socket
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path

from server.generator.messages import Channel, FromGenerator, from_generator


def start_generator_process(log: Path | None = None) -> tuple[subprocess.Popen[bytes], Channel[FromGenerator]]:
    """The process and our end of its pipe. The process ends with the thread that calls this.

    What it writes to stderr goes to the end of `log`, if that is given.
    """
    ours, theirs = socket.socketpair()
    command = [sys.executable, "-m", "server.generator.child.process", str(theirs.fileno()), str(os.getpid())]
    with theirs, log.open("ab") if log else nullcontext() as stderr:
        try:
            process = subprocess.Popen(command, pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL, stderr=stderr)
        except OSError:
            ours.close()
            raise
    return process, Channel(ours, from_generator)
