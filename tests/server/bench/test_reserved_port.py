"""A port that stays free for one program, whether that runs or not."""

import socket

import pytest

from server.bench.reserved_port import reserved_port


def test_nobody_takes_it_and_the_program_that_it_is_for_can_listen_on_it_again_and_again() -> None:
    with reserved_port() as reserved:
        address = reserved.getsockname()
        for _ in range(2):
            with socket.socket() as other, pytest.raises(OSError, match="Address already in use"):
                other.bind(address)
            with pytest.raises(ConnectionRefusedError):
                socket.create_connection(address)
            with socket.create_server(address) as server, socket.create_connection(address) as client:
                accepted, _ = server.accept()
                accepted.sendall(b"x")
                accepted.close()
                assert client.recv(1) == b"x"
