"""One API and several workers as processes of their own on one database, without a supervisor."""

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

from server.settings import ENV_PREFIX
from tests.live_server import ROOT


class Cluster:
    """Starts and ends workers by name; every one is stopped at the end."""

    def __init__(self, data_dir: Path, **settings: Any) -> None:
        self._data_dir = data_dir
        self._environment = {key: value for key, value in os.environ.items() if not key.startswith(ENV_PREFIX)}
        self._environment |= {f"{ENV_PREFIX}{key.upper()}": str(value) for key, value in settings.items()}
        self._environment["PYTHONPATH"] = str(ROOT)
        self._processes: dict[str, subprocess.Popen[bytes]] = {}

    def start_worker(self, name: str, *, renderer: str = "by_prompt") -> int:
        """Start a worker with this id; returns its pid."""
        environment = self._environment | {
            f"{ENV_PREFIX}WORKER_ID": name,
            f"{ENV_PREFIX}GENERATOR__RENDERER": f"tests.fakes.{renderer}:Renderer",
        }
        command = [sys.executable, "-m", "server.cli", "worker", "--data-dir", str(self._data_dir)]
        self._processes[name] = subprocess.Popen(command, env=environment, cwd=self._data_dir)
        return self._processes[name].pid

    def signal(self, name: str, number: signal.Signals) -> None:
        """Send a signal to one worker."""
        self._processes[name].send_signal(number)

    def wait(self, name: str) -> int:
        """Wait for the end of one worker."""
        return self._processes[name].wait(30)

    def stop(self) -> None:
        """Kill whatever is left."""
        for process in self._processes.values():
            if process.poll() is None:
                process.kill()
            process.wait()
