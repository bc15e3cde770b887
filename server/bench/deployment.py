"""Starting the server for benchmarks and tests: as real processes, which die with the one that started them."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from server.bench.live_server import LiveServer
from server.bench.waiting import LIMIT_S, until
from server.parent_death import tied
from server.settings import ENV_PREFIX

ROOT: Final = Path(__file__).parents[2]


class Deployment:
    """The processes of one data directory and one set of settings; those that are left at its end are killed.

    Settings are given as `section__key=value`, on top of configs/demo.toml; the environment of this process has no
    say. `root` is where the packages are, `log` a file that gets what the processes write to stderr.
    """

    def __init__(
        self, data_dir: Path, settings: Mapping[str, Any], *, root: Path = ROOT, log: Path | None = None
    ) -> None:
        self.data_dir = data_dir
        self._root = root
        self._log = log
        self._environment = {key: value for key, value in os.environ.items() if not key.startswith(ENV_PREFIX)}
        self._environment |= _variables(settings) | {"PYTHONPATH": str(root)}
        self._servers: list[LiveServer] = []
        self._processes: dict[str, subprocess.Popen[str]] = {}
        data_dir.mkdir(exist_ok=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()

    def serve(self, *options: str, ready: bool = True, own_group: bool = False) -> LiveServer:
        """API and worker under one supervisor, on a free port; `ready`: wait until it can make videos.

        With `own_group` its processes are a process group, which gets signals as one.
        """
        process = self._start(["serve", "--port", "0", *options], stdout=subprocess.PIPE, start_new_session=own_group)
        try:
            assert process.stdout is not None  # noqa: S101 - for the type checker
            line = process.stdout.readline()
            found = re.search(r"https?://\S+", line)
            if found is None:
                raise RuntimeError(f"serve said {line!r}")
            server = self._server(process, found[0])
            if ready:
                until(lambda: server.http.get("/health/ready").is_success, 2 * LIMIT_S)  # the generator may load torch
        except BaseException:
            process.kill()
            raise
        return server

    def start_api(self) -> LiveServer:
        """An API of its own, once it answers."""
        with socket.create_server(("127.0.0.1", 0)) as listener:  # handed on as `serve` does: the port stays taken
            port, handle = listener.getsockname()[1], listener.fileno()
            process = self._start(["api", "--listen-fd", str(handle)], pass_fds=[handle])
        self._processes["api"] = process
        server = self._server(process, f"http://127.0.0.1:{port}")
        until(lambda: server.http.get("/health/live").is_success)
        return server

    def start_worker(self, name: str, *, data_dir: Path | None = None, **settings: Any) -> int:
        """A worker with this id, on a disk of its own if one is named; returns its pid."""
        settings |= {"worker_id": name}
        self._processes[name] = self._start(["worker"], data_dir=data_dir, settings=settings)
        return self._processes[name].pid

    def signal(self, name: str, number: signal.Signals) -> None:
        """Send a signal to one worker."""
        self._processes[name].send_signal(number)

    def wait(self, name: str) -> int:
        """Wait for the end of one worker; returns its exit code."""
        return self._processes[name].wait(LIMIT_S)

    def kill(self) -> None:
        """Kill whatever is left."""
        for server in self._servers:
            server.http.close()
            if server.process.stdout is not None:
                server.process.stdout.close()
        for process in [*self._processes.values(), *(server.process for server in self._servers)]:
            if process.poll() is None:
                process.kill()
            process.wait()

    def command(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run a command of the command line to its end, on the same data with the same settings."""
        return subprocess.run(
            self._words(words, self.data_dir),
            env=self._environment,
            cwd=self._root,
            capture_output=True,
            text=True,
            check=False,
            timeout=LIMIT_S,
        )

    def _server(self, process: subprocess.Popen[str], url: str) -> LiveServer:
        server = LiveServer(process, url, data_dir=self.data_dir)
        self._servers.append(server)
        return server

    def _words(self, words: Sequence[str], data_dir: Path) -> list[str]:
        return tied([sys.executable, "-m", "server", words[0], "--data-dir", str(data_dir), *words[1:]])

    def _start(
        self,
        words: Sequence[str],
        *,
        data_dir: Path | None = None,
        settings: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> subprocess.Popen[str]:
        data_dir = data_dir or self.data_dir
        log = self._log.open("a") if self._log else None
        try:
            return subprocess.Popen(
                self._words(words, data_dir),
                env=self._environment | _variables(settings or {}),
                cwd=data_dir,
                text=True,
                stderr=log,
                **options,
            )
        finally:
            if log is not None:
                log.close()


def _variables(settings: Mapping[str, Any]) -> dict[str, str]:
    """Settings as environment variables; lists as JSON."""
    return {
        f"{ENV_PREFIX}{key.upper()}": json.dumps(value) if isinstance(value, (list, dict)) else str(value)
        for key, value in settings.items()
    }


@contextmanager
def temporary_server(settings: Mapping[str, Any]) -> Iterator[LiveServer]:
    """`serve` in a directory of its own, ready; stopped and removed afterwards."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with Deployment(folder, settings, log=folder / "bench.log") as deployment:
            server = deployment.serve()
            try:
                yield server
            finally:
                server.stop()
