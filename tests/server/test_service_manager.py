"""What a service manager is told, and when."""

import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from server.bench.deployment import Deployment
from server.db.migrations import migrate
from server.service_manager import READY, STOPPING, notify
from tests.harness.live_server import FAST, fake


@pytest.fixture
def manager(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(str(tmp_path / "notify"))
        listener.settimeout(60)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        yield listener


def test_facts_are_lines_of_one_message(manager: socket.socket) -> None:
    notify(READY, "STATUS=listens")
    assert manager.recv(100) == b"READY=1\nSTATUS=listens"


def test_an_abstract_address(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(f"\0hunyuan-{os.getpid()}")
        listener.settimeout(60)
        monkeypatch.setenv("NOTIFY_SOCKET", f"@hunyuan-{os.getpid()}")
        notify(STOPPING)
        assert listener.recv(100) == b"STOPPING=1"


def test_a_process_without_a_manager_tells_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    notify(READY)
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "gone"))
    notify(READY)


def test_a_worker_says_when_it_takes_jobs_and_when_it_stops(manager: socket.socket, tmp_path: Path) -> None:
    migrate(f"sqlite:///{tmp_path / 'hunyuan-custom.sqlite'}", tmp_path / "lock")
    with Deployment(tmp_path, FAST | {"generator__renderer": fake("renders_colour")}) as deployment:
        deployment.start_worker("own")
        assert manager.recv(100) == READY.encode()
        deployment.signal("own", signal.SIGTERM)
        assert manager.recv(100) == STOPPING.encode()
        assert deployment.wait("own") == 0
