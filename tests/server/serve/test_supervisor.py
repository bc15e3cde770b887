"""The supervisor restarts its processes whatever the machine lacks at the moment."""

import errno
import os
import signal
import socket
import subprocess
import threading
from pathlib import Path
from typing import Any

import pytest

from server.errors import SettingsError
from server.generator.state import Phase
from server.jobs.worker_registry import WorkerRegistry
from server.serve import children
from server.serve.replicas import lock_worker_ids
from server.serve.supervisor import Supervisor
from server.settings_loader import load_settings
from tests.harness.in_process import open_api
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


def test_no_room_for_a_thread_does_not_keep_a_worker_from_being_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The thread that starts processes must not end: the kernel would end all others with it."""
    start, begin = subprocess.Popen, threading.Thread.start
    workers: list[subprocess.Popen[bytes]] = []

    def start_sleeping(command: list[str], **options: Any) -> Any:
        process = start(["sleep", "60"], **options)
        if command[3] == "worker":
            workers.append(process)
        return process

    def refuse(thread: threading.Thread) -> None:
        if thread.name == "worker-rows":
            raise RuntimeError("can't start new thread")
        begin(thread)

    monkeypatch.setattr(subprocess, "Popen", start_sleeping)
    monkeypatch.setattr(threading.Thread, "start", refuse)
    monkeypatch.setattr(children, "_FIRST_DELAY_S", 0.01)
    with Supervisor(load_settings(None, {"data_dir": tmp_path, "api": {"port": 0}}), []):
        until(lambda: len(workers) == 1)
        workers[0].kill()
        until(lambda: len(workers) == 2)


def test_a_start_that_fails_holds_nothing(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        settings = load_settings(None, {"data_dir": tmp_path, "api": {"port": taken.getsockname()[1]}})
        supervisor = Supervisor(settings, [])
        with pytest.raises(SettingsError, match=r"api\.port"):
            supervisor.__enter__()
    with lock_worker_ids(settings):
        pass


def test_a_worker_that_has_ended_is_not_ready_until_it_is_heard_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither after a restart of the server, while its last heartbeat is fresh, nor after one of a worker."""
    start = subprocess.Popen
    pids: list[int] = []

    def start_sleeping(command: list[str], **options: Any) -> Any:
        process = start(["sleep", "60"], **options)
        if command[3] == "worker":
            pids.append(process.pid)
        return process

    with open_api(tmp_path) as api:
        registry = WorkerRegistry(api.app.state.services.store._database)  # type: ignore[attr-defined]

        def ready(pid: int) -> bool:
            registry.beat("local", pid=pid, generator_pid=2, state=Phase.READY, detail="model")
            return is_ready()

        def is_ready() -> bool:
            answer = api.get("/health/ready")
            assert answer.json()["status"] == ("ready" if answer.is_success else "not ready")
            return answer.is_success

        assert ready(pid=1)
        monkeypatch.setattr(subprocess, "Popen", start_sleeping)
        with Supervisor(load_settings(None, {"data_dir": tmp_path, "api": {"port": 0}}), []):
            assert not is_ready()
            until(lambda: len(pids) == 1)
            assert ready(pids[0])
            os.kill(pids[0], signal.SIGKILL)
            until(lambda: not is_ready())
