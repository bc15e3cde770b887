"""`serve`: the API and one worker for each group of GPUs as processes, restarted when they die; or the workers alone.

The supervisor of `serve` owns the listening socket and the API inherits it: while the API restarts, connections wait in
the backlog instead of being refused.
"""

import logging
import os
import signal
import socket
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

from server.db.migrations import migrate
from server.errors import SettingsError
from server.serve.children import Children, Start
from server.serve.replicas import lock_worker_ids, stop_within_s, worker_ids, worker_starts
from server.serve.worker_rows import WorkerRows
from server.service_manager import READY, STOPPING, notify
from server.settings import Settings
from server.signal_flag import SignalFlag

logger = logging.getLogger(__name__)

_SIGNAL_TICK_S = 0.5


class WorkerGroup:
    """Context of the workers of one machine: their ids locked and the processes started on entry, ended on exit.

    `arguments` are the command-line options that lead a child to the same settings; `log` is where the processes write
    their logs instead of stderr.
    """

    def __init__(self, settings: Settings, arguments: Sequence[str], *, log: Path | None = None) -> None:
        self._settings = settings
        self._workers = worker_starts(settings, arguments)
        self._log = log

    def __enter__(self) -> Self:
        """Start them."""
        with ExitStack() as held:
            held.enter_context(lock_worker_ids(self._settings))
            beside = self._beside_workers(held)
            rows = WorkerRows(self._settings.database_url, worker_ids(self._settings))
            rows.stopped()
            self._children = Children(
                [*beside, *self._workers],
                stop_within_s=stop_within_s(self._settings),
                log=self._log,
                on_end=rows.on_end,
            )
            self._children.start()
            held.callback(self._children.stop)
            self._held = held.pop_all()
        return self

    def _beside_workers(self, held: ExitStack) -> list[Start]:  # noqa: ARG002
        """Further processes; what they need is let go with `held`."""
        return []

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End all processes: an API finishes its answers, running jobs continue at the next start."""
        self._held.close()

    def run_until_signal(self) -> None:
        """Wait for SIGTERM or SIGINT; a second one ends the grace of running jobs."""
        _wait_for_signal(self._children)


class Supervisor(WorkerGroup):
    """Context of a running server: bound and migrated on entry, stopped on exit.

    `api_arguments` are the options that only the API knows.
    """

    def __init__(
        self,
        settings: Settings,
        arguments: Sequence[str],
        *,
        api_arguments: Sequence[str] = (),
        log: Path | None = None,
    ) -> None:
        super().__init__(settings, arguments, log=log)
        self._api_words = [*arguments, *api_arguments]

    def _beside_workers(self, held: ExitStack) -> list[Start]:
        self._socket = held.enter_context(_listen(self._settings.api.host, self._settings.api.port))
        migrate(self._settings.database_url, self._settings.data_dir / "migrate.lock")
        handle = self._socket.fileno()
        return [Start("api", ["api", "--listen-fd", str(handle), *self._api_words], inherited=[handle])]

    @property
    def url(self) -> str:
        """Where the server listens."""
        host, port = self._socket.getsockname()[:2]
        scheme = "https" if self._settings.api.tls_cert else "http"
        return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"


def _wait_for_signal(children: Children) -> None:
    """A second signal has workers that let their jobs finish give them back instead.

    By a signal of its own, since SIGINT and SIGTERM may reach the workers twice at the first try: from the terminal or
    the service manager, which signal all processes of a group, and from here.
    """
    signalled = SignalFlag()

    def on_signal(*_: object) -> None:
        if signalled.is_set():
            children.send("worker", signal.SIGUSR1)
        signalled.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, on_signal)
    notify(READY)
    while not signalled.wait(_SIGNAL_TICK_S):
        pass
    logger.info("stopping")
    notify(STOPPING)


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
