"""How far a process is, told to the service manager that started it (systemd with `Type=notify`).

A datagram to the socket named in NOTIFY_SOCKET; without one nothing is told. Only the process that systemd itself
started may speak: what `serve` starts is its own affair.
"""

import os
import socket
from contextlib import suppress
from typing import Final

READY: Final = "READY=1"
STOPPING: Final = "STOPPING=1"


def notify(*facts: str) -> None:
    """Tell one or several facts at once, each as `KEY=value`. A manager that does not listen is no fault."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address:
        return
    if address.startswith("@"):  # an abstract address, written like that because a variable cannot hold a zero
        address = f"\0{address[1:]}"
    with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.sendto("\n".join(facts).encode(), address)
