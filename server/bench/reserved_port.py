"""A port of loopback for a program that is started later, or is stopped and started again."""

import socket


def reserved_port() -> socket.socket:
    """A socket that is bound to a free port and does not listen: connections to it are refused.

    Until it is closed the kernel gives its port to nobody who asks for any, while a server that names it, and sets
    SO_REUSEADDR as servers do, can listen on it.
    """
    kept = socket.socket()
    kept.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    kept.bind(("127.0.0.1", 0))
    return kept
