"""`serve`: the API and the worker as two processes, restarted when they die.

The supervisor owns the listening socket and the API inherits it: while the API restarts, connections wait in the
backlog instead of being refused.
"""

import logging
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Self

from server.db.migrations import migrate
from server.errors import SettingsError
from server.settings import Settings
from server.worker.worker_lock import lock_worker_id

logger = logging.getLogger(__name__)

_TICK_S = 0.2
_SIGNAL_TICK_S = 0.5
_FIRST_DELAY_S = 0.2
_LONGEST_DELAY_S = 5.0
_HEALTHY_AFTER_S = 3.0
_KILL_AFTER_S = 15.0
_MARGIN_S = 5.0  # what a worker needs beyond its job's grace


class _Child:
    """One supervised process, restarted with a delay that doubles while it keeps ending soon after its start."""

    def __init__(self, role: str, command: Sequence[str], inherited: Sequence[int], log: IO[bytes] | None) -> None:
        self.role = role
        self._command = command
        self._inherited = inherited
        self._log = log
        self._delay = _FIRST_DELAY_S
        self._started_at = 0.0
        self._start_at: float | None = time.monotonic()  # None while it runs
        self._process: subprocess.Popen[bytes] | None = None

    def check(self) -> None:
        """Start the process if it is to start now; if it has ended, after a delay."""
        now = time.monotonic()
        if self._start_at is not None and now >= self._start_at:
            self._start(now)
        elif self._start_at is None and self._process is not None and self._process.poll() is not None:
            lived = now - self._started_at
            self._delay = _FIRST_DELAY_S if lived > _HEALTHY_AFTER_S else min(self._delay * 2, _LONGEST_DELAY_S)
            self._start_at = now + self._delay
            logger.error("%s ended with %s; starting again in %.1f s", self.role, self._process.returncode, self._delay)

    def _start(self, now: float) -> None:
        try:
            self._process = subprocess.Popen(
                self._command, pass_fds=self._inherited, stdin=subprocess.DEVNULL, stderr=self._log
            )
        except OSError as error:  # no memory for a process, say
            self._delay = min(self._delay * 2, _LONGEST_DELAY_S)
            self._start_at = now + self._delay
            logger.warning("%s cannot be started (%s); trying again in %.1f s", self.role, error, self._delay)
        else:
            self._started_at, self._start_at = now, None

    def send(self, number: signal.Signals) -> None:
        """Send a signal to the process, if there is one."""
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(number)

    def wait(self, deadline: float) -> None:
        """Wait for its end until the deadline, then kill it."""
        if self._process is None:
            return
        try:
            self._process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


class Supervisor:
    """Context of a running server: bound and migrated on entry, stopped on exit.

    `arguments` are the command-line options that lead a child to the same settings, `api_arguments` those that only
    the API knows; `log` is where the processes write their logs instead of stderr.
    """

    def __init__(
        self,
        settings: Settings,
        arguments: Sequence[str],
        *,
        api_arguments: Sequence[str] = (),
        log: Path | None = None,
    ) -> None:
        self._settings = settings
        self._log_path = log
        self._arguments = list(arguments)
        self._api_arguments = list(api_arguments)
        self._stopping = threading.Event()
        self._children: list[_Child] = []
        # All children are started by this one thread: the kernel ends them with the thread that started them.
        self._thread = threading.Thread(target=self._watch, name="supervisor")

    def __enter__(self) -> Self:
        """Bind, create the tables, start both processes."""
        self._lock = lock_worker_id(self._settings)
        self._socket = _listen(self._settings.api.host, self._settings.api.port)
        migrate(self._settings.database_url, self._settings.data_dir / "migrate.lock")
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End both processes: the API finishes its answers, running jobs continue at the next start."""
        self._stopping.set()
        self._thread.join()
        self._socket.close()
        self._lock.close()

    @property
    def url(self) -> str:
        """Where the server listens."""
        host, port = self._socket.getsockname()[:2]
        scheme = "https" if self._settings.api.tls_cert else "http"
        return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"

    def run_until_signal(self) -> None:
        """Wait for SIGTERM or SIGINT; a second one ends the grace of a running job."""
        signalled = threading.Event()

        def on_signal(*_: object) -> None:
            if signalled.is_set():
                self.hurry()
            signalled.set()

        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, on_signal)
        while not signalled.wait(_SIGNAL_TICK_S):
            # Not one long wait: the kernel may give a signal to another thread (as when the main one was stopped by
            # Ctrl-Z), and Python runs its handler in the main thread only when that executes something.
            pass
        logger.info("stopping")

    def hurry(self) -> None:
        """End the grace of a running job: a worker that lets it finish gives it back instead.

        By a signal of its own, since SIGINT and SIGTERM may reach the worker twice at the first try: from the
        terminal or the service manager, which signal all processes of a group, and from here.
        """
        for child in self._children:
            if child.role == "worker":
                child.send(signal.SIGUSR1)

    def _watch(self) -> None:
        log = self._log_path.open("ab") if self._log_path else None
        python = [sys.executable, "-m", "server"]
        ours = ["--supervisor", str(os.getpid()), *self._arguments]
        fd = self._socket.fileno()
        self._children = children = [
            _Child("api", [*python, "api", "--listen-fd", str(fd), *ours, *self._api_arguments], [fd], log),
            _Child("worker", [*python, "worker", *ours], [], log),
        ]
        while True:
            for child in children:
                child.check()
            if self._stopping.wait(_TICK_S):
                break
        deadline = time.monotonic() + max(_KILL_AFTER_S, self._settings.jobs.shutdown_grace_s + _MARGIN_S)
        for child in children:
            child.send(signal.SIGTERM)
        for child in children:
            child.wait(deadline)
        if log is not None:
            log.close()


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        raise SettingsError(
            f"api.host, api.port: cannot listen on {host}:{port}: {os.strerror(error.errno or 0)}"
        ) from None
    listener.listen(2048)
    return listener
