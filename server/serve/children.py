"""Processes that are restarted when they die, and end with the thread that started them."""

import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

logger = logging.getLogger(__name__)

_TICK_S = 0.2
_FIRST_DELAY_S = 0.2
_LONGEST_DELAY_S = 5.0
_HEALTHY_AFTER_S = 3.0


@dataclass(frozen=True, slots=True)
class Start:
    """How one process is started: words after `hunyuan-custom`, further environment, and where it may run.

    `cpus` are the numbers of processors that it and its children stay on; none: all that this process has.
    """

    role: str
    words: Sequence[str]
    name: str = ""  # in the log, where it is not the role
    inherited: Sequence[int] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    cpus: frozenset[int] = frozenset()


class Children:
    """One thread starts and watches them all: the kernel ends them with the thread that started them."""

    def __init__(
        self,
        starts: Sequence[Start],
        *,
        stop_within_s: float,
        log: Path | None = None,
        on_end: Callable[[str, int], None] = lambda _role, _pid: None,
    ) -> None:
        """`log` is where they write their logs instead of stderr; what has not ended `stop_within_s` is killed.

        `on_end` is told of each that has ended by itself, on the thread that starts the next: it must not wait.
        """
        self._on_end = on_end
        self._starts = starts
        self._stop_within_s = stop_within_s
        self._log = log
        self._children: list[_Child] = []
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="supervisor")

    def start(self) -> None:
        """Keep them running from now on."""
        self._thread.start()

    def stop(self) -> None:
        """End all by SIGTERM and wait for that."""
        self._stopping.set()
        self._thread.join()

    def send(self, role: str, number: signal.Signals) -> None:
        """Send a signal to those of a role."""
        for child in self._children:
            if child.start.role == role:
                child.send(number)

    def _watch(self) -> None:
        log = self._log.open("ab") if self._log else None
        self._children = [_Child(start, log) for start in self._starts]
        while True:
            for child in self._children:
                ended = child.check()
                if ended is not None:
                    self._on_end(child.start.role, ended)
            if self._stopping.wait(_TICK_S):
                break
        deadline = time.monotonic() + self._stop_within_s
        for child in self._children:
            child.send(signal.SIGTERM)
        for child in self._children:
            child.wait(deadline)
        if log is not None:
            log.close()


class _Child:
    """One process, restarted with a delay that doubles while it keeps ending soon after its start."""

    def __init__(self, start: Start, log: IO[bytes] | None) -> None:
        self.start = start
        self._name = start.name or start.role
        self._log = log
        self._delay = _FIRST_DELAY_S
        self._started_at = 0.0
        self._start_at: float | None = time.monotonic()  # None while it runs
        self._process: subprocess.Popen[bytes] | None = None

    def check(self) -> int | None:
        """Start the process if it is to start now; if it has ended, after a delay. Returns the id of one that has."""
        now = time.monotonic()
        if self._start_at is not None and now >= self._start_at:
            self._start(now)
        elif self._start_at is None and self._process is not None and self._process.poll() is not None:
            lived = now - self._started_at
            self._delay = _FIRST_DELAY_S if lived > _HEALTHY_AFTER_S else min(self._delay * 2, _LONGEST_DELAY_S)
            self._start_at = now + self._delay
            logger.error(
                "%s ended with %s; starting again in %.1f s", self._name, self._process.returncode, self._delay
            )
            return self._process.pid
        return None

    def _start(self, now: float) -> None:
        start = self.start
        role, *words = start.words
        command = [sys.executable, "-m", "server", role, "--supervisor", str(os.getpid()), *words]
        try:
            with _staying_on(start.cpus):
                self._process = subprocess.Popen(
                    command,
                    env=os.environ | start.environment,
                    pass_fds=start.inherited,
                    stdin=subprocess.DEVNULL,
                    stderr=self._log,
                )
        except OSError as error:  # no memory for a process, say
            self._delay = min(self._delay * 2, _LONGEST_DELAY_S)
            self._start_at = now + self._delay
            logger.warning("%s cannot be started (%s); trying again in %.1f s", self._name, error, self._delay)
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


@contextmanager
def _staying_on(cpus: frozenset[int]) -> Iterator[None]:
    """What this thread starts meanwhile runs on those processors, as far as this process may use them."""
    if not cpus or sys.platform != "linux":
        yield
        return
    before = os.sched_getaffinity(0)  # of this thread alone
    os.sched_setaffinity(0, cpus & before or before)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)
