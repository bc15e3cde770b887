"""The supervisor restarts its processes whatever the machine lacks at the moment."""

import errno
import socket
import subprocess
from pathlib import Path
from typing import Any

import pytest

from server.errors import SettingsError
from server.serve import children
from server.serve.replicas import lock_worker_ids
from server.serve.supervisor import Supervisor
from server.settings_loader import load_settings
from tests.harness.live_server import until


def test_no_room_for_a_process_is_a_matter_of_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    start = subprocess.Popen
    roles: list[str] = []
    refusals = iter([OSError(errno.ENOMEM, "Cannot allocate memory"), OSError(errno.EMFILE, "Too many open files")])

    def start_unless_refused(command: list[str], **options: Any) -> Any:
        refusal = next(refusals, None) if roles.count("api") else None
        if refusal is not None:
            raise refusal
        roles.append(command[3])
        return start(["sleep", "60"], **options)

    monkeypatch.setattr(subprocess, "Popen", start_unless_refused)
    monkeypatch.setattr(children, "_FIRST_DELAY_S", 0.01)
    with Supervisor(load_settings(None, {"data_dir": tmp_path, "api": {"port": 0}}), []):
        until(lambda: roles.count("worker") == 1)
        assert next(refusals, None) is None


def test_a_start_that_fails_holds_nothing(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        settings = load_settings(None, {"data_dir": tmp_path, "api": {"port": taken.getsockname()[1]}})
        supervisor = Supervisor(settings, [])
        with pytest.raises(SettingsError, match=r"api\.port"):
            supervisor.__enter__()
    with lock_worker_ids(settings):
        pass
