"""One API and several workers as processes of their own on one database, without a supervisor."""

import contextlib
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import httpx
import psutil

from server.settings import ENV_PREFIX
from tests.harness.live_server import ROOT, Server, until


def freeze(api: Server, *processes: psutil.Process) -> None:
    """Stop them, but not within a transaction of SQLite: its lock is the whole database's, and would be kept."""
    file = api.data_dir / "hunyuan-custom.sqlite"
    for _ in range(100):
        for process in processes:
            process.suspend()
        if not file.exists():
            return
        database = sqlite3.connect(file, timeout=0.2, isolation_level=None)
        with contextlib.closing(database), contextlib.suppress(sqlite3.OperationalError):
            database.execute("BEGIN IMMEDIATE")
            return
        for process in processes:
            process.resume()
        time.sleep(0.05)
    raise AssertionError("they are never without a transaction")


class Cluster:
    """Starts and ends workers by name; every one is stopped at the end."""

    def __init__(self, data_dir: Path, **settings: Any) -> None:
        self._data_dir = data_dir
        self._environment = {key: value for key, value in os.environ.items() if not key.startswith(ENV_PREFIX)}
        self._environment |= {f"{ENV_PREFIX}{key.upper()}": str(value) for key, value in settings.items()}
        self._environment["PYTHONPATH"] = str(ROOT)
        self._processes: dict[str, subprocess.Popen[Any]] = {}
        self._clients: list[httpx.Client] = []

    def start_worker(self, name: str, *, renderer: str = "by_prompt", data_dir: Path | None = None) -> int:
        """Start a worker with this id, on a disk of its own if one is named; returns its pid."""
        data_dir = data_dir or self._data_dir
        environment = self._environment | {
            f"{ENV_PREFIX}WORKER_ID": name,
            f"{ENV_PREFIX}GENERATOR__RENDERER": f"tests.fakes.{renderer}:Renderer",
        }
        command = [sys.executable, "-m", "server", "worker", "--data-dir", str(data_dir)]
        self._processes[name] = subprocess.Popen(command, env=environment, cwd=data_dir)
        return self._processes[name].pid

    def start_api(self) -> Server:
        """Start an API of its own and wait until it answers."""
        with socket.create_server(("127.0.0.1", 0)) as door:  # as `serve` hands it on: nobody else gets its port
            port, handle = door.getsockname()[1], str(door.fileno())
            command = [sys.executable, "-m", "server", "api", "--data-dir", str(self._data_dir)]
            process = subprocess.Popen(
                [*command, "--listen-fd", handle],
                env=self._environment,
                cwd=self._data_dir,
                text=True,
                pass_fds=[door.fileno()],
            )
        self._processes["api"] = process
        server = Server(process, f"http://127.0.0.1:{port}", self._data_dir, self._environment)
        self._clients.append(server.http)
        until(lambda: server.http.get("/health/live").is_success)
        return server

    def signal(self, name: str, number: signal.Signals) -> None:
        """Send a signal to one worker."""
        self._processes[name].send_signal(number)

    def wait(self, name: str) -> int:
        """Wait for the end of one worker."""
        return self._processes[name].wait(30)

    def stop(self) -> None:
        """Kill whatever is left."""
        for client in self._clients:
            client.close()
        for process in self._processes.values():
            if process.poll() is None:
                process.kill()
            process.wait()
