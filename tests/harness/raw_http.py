"""HTTP written byte by byte, for what no client library would send."""

import socket

import httpx

from tests.harness.live_server import Server


def connect(server: Server) -> socket.socket:
    url = httpx.URL(server.url)
    return socket.create_connection((url.host, url.port or 80), timeout=60)


def read_all(connection: socket.socket) -> bytes:
    """What the server says until it hangs up."""
    said = bytearray()
    try:
        while chunk := connection.recv(65536):
            said += chunk
    except ConnectionResetError:
        pass
    return bytes(said)
