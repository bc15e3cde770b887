"""The parent side of the generator: one child process, kept alive, one request at a time.

The child's death is a normal case: it ends the request it was working on and a new child is started.
"""

import logging
import queue
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import assert_never

from server.errors import ServerError
from server.messages import (
    Cancel,
    Channel,
    Failed,
    Finished,
    Generate,
    Load,
    LoadFailed,
    Log,
    Ready,
    Working,
    from_generator,
)
from server.settings import Settings

logger = logging.getLogger(__name__)

_TICK_S = 0.1  # how often a running request looks at its limits
_LONGEST_RESTART_DELAY_S = 60.0


class GeneratorDied(ServerError):
    """The child ended while it worked on the request."""


class GeneratorStalled(ServerError):
    """The child was silent for longer than the stall limit and was killed."""


class GenerationCancelled(ServerError):
    """The request was cancelled; the child is free again, or was killed."""


class GenerationError(ServerError):
    """The model raised; the same request would fail again."""


@dataclass(frozen=True, slots=True)
class _Died:
    """The end of a child, seen by the request that was running."""

    exit_code: int


class _Watch:
    """The clocks of one running request."""

    def __init__(self, cancel_requested: Callable[[], bool], settings: Settings) -> None:
        self.limits = settings.generator
        self.last_sign = self._last_look = time.monotonic()
        self.cancelled_at: float | None = None
        self._cancel_requested = cancel_requested
        self._look_every_s = settings.jobs.cancel_poll_s

    def cancel_arrived(self) -> bool:
        """True once: when the user's cancel is first seen."""
        now = time.monotonic()
        if self.cancelled_at is not None or now - self._last_look < self._look_every_s:
            return False
        self._last_look = now
        if self._cancel_requested():
            self.cancelled_at = now
        return self.cancelled_at is not None

    def cancel_ignored(self) -> bool:
        """Whether the child has had its time to react to a cancel."""
        return self.cancelled_at is not None and time.monotonic() - self.cancelled_at > self.limits.cancel_grace_s

    def stalled(self) -> bool:
        """Whether the child has been silent for too long."""
        return time.monotonic() - self.last_sign > self.limits.stall_timeout_s


@dataclass(frozen=True, slots=True)
class GeneratorState:
    """What the heartbeat reports: `loading`, `ready` or `failed`, and a sentence about it."""

    name: str
    detail: str
    pid: int | None


class Generator:
    """Owns the child process. `start` once; `run` from one thread at a time."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._state = GeneratorState("loading", "starting", None)
        self._ready = threading.Event()
        self._stopping = threading.Event()
        self._inbox: queue.SimpleQueue[Working | Log | Finished | Failed | _Died] = queue.SimpleQueue()
        self._process: subprocess.Popen[bytes] | None = None
        self._channel: Channel[Ready | LoadFailed | Working | Log | Finished | Failed] | None = None
        self._running = threading.Lock()
        # Children are started by this thread alone, since the kernel ends them with the thread that started them.
        self._keeper = threading.Thread(target=self._keep_alive, name="generator-keeper", daemon=True)

    @property
    def state(self) -> GeneratorState:
        """What the child is doing."""
        return self._state

    def start(self) -> None:
        """Start the child and keep one running from now on."""
        self._keeper.start()

    def stop(self) -> None:
        """Kill the child and start no other."""
        self._stopping.set()
        self._kill()

    def wait_until_ready(self) -> None:
        """Block until a model is loaded, however long that takes: jobs stay queued meanwhile."""
        self._ready.wait()

    def run(
        self,
        job: Generate,
        *,
        on_message: Callable[[Working | Log], None],
        cancel_requested: Callable[[], bool],
    ) -> Finished:
        """Have the child make one video.

        Raises:
            GenerationCancelled, GenerationError, GeneratorStalled, GeneratorDied
        """
        with self._running:
            self._drain_inbox()
            self._send(job)
            return self._follow(job, on_message, cancel_requested)

    def _follow(
        self, job: Generate, on_message: Callable[[Working | Log], None], cancel_requested: Callable[[], bool]
    ) -> Finished:
        watch = _Watch(cancel_requested, self._settings)
        while True:
            self._enforce(watch, job)
            try:
                message = self._inbox.get(timeout=_TICK_S)
            except queue.Empty:
                continue
            watch.last_sign = time.monotonic()
            match message:
                case Working() | Log():
                    on_message(message)
                case Finished():
                    return message
                case Failed(reason="cancelled"):
                    raise GenerationCancelled(message.message)
                case Failed():
                    raise GenerationError(message.message)
                case _Died():
                    if watch.cancelled_at is not None:
                        raise GenerationCancelled("cancelled; the generator ended")
                    raise GeneratorDied(_describe_exit(message.exit_code))
                case _:
                    assert_never(message)

    def _enforce(self, watch: "_Watch", job: Generate) -> None:
        """Pass a cancel on, and end a child that does not react or has fallen silent."""
        if watch.cancel_arrived():
            self._send(Cancel(request_id=job.request_id))
        if watch.cancel_ignored():
            self._kill()
            raise GenerationCancelled("cancelled; the generator did not react in time and was killed")
        if watch.stalled():
            self._kill()
            raise GeneratorStalled(f"no progress for {watch.limits.stall_timeout_s:g} s; the generator was killed")

    def _send(self, message: Generate | Cancel) -> None:
        try:
            if self._channel is not None:
                self._channel.send(message)
        except OSError:
            logger.warning("the generator is gone; its end will be seen by the reader")

    def _drain_inbox(self) -> None:
        # What an earlier request left behind; a death in between is the child of before, unless none is ready now.
        while not self._inbox.empty():
            self._inbox.get_nowait()
        if not self._ready.is_set():
            self._inbox.put(_Died(-1))

    # -- the child's life --------------------------------------------------------------------------------------

    def _keep_alive(self) -> None:
        delay = self._settings.generator.restart_delay_s
        while not self._stopping.is_set():
            was_ready = self._live_once()
            delay = self._settings.generator.restart_delay_s if was_ready else delay * 2
            self._stopping.wait(min(delay, _LONGEST_RESTART_DELAY_S))

    def _live_once(self) -> bool:
        """One child from start to end; whether it ever was ready."""
        ours, theirs = socket.socketpair()
        command = [sys.executable, "-m", "server.generator_process", str(theirs.fileno())]
        with theirs:
            process = subprocess.Popen(command, pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL)
        self._process, self._channel = process, Channel(ours, from_generator)
        self._state = GeneratorState("loading", "loading the model", process.pid)
        overdue = threading.Timer(self._settings.generator.load_timeout_s, self._kill_if_loading, [process])
        overdue.daemon = True
        overdue.start()
        try:
            self._begin_loading()
            for message in self._channel:
                self._receive(message, process.pid)
        finally:
            overdue.cancel()
            was_ready = self._state.name == "ready"
            self._ready.clear()
            self._channel.close()
            exit_code = process.wait()
            if self._state.name != "failed":
                self._state = GeneratorState("loading", f"restarting: {_describe_exit(exit_code)}", None)
            logger.warning("generator %d: %s", process.pid, _describe_exit(exit_code))
            self._inbox.put(_Died(exit_code))
        return was_ready

    def _begin_loading(self) -> None:
        settings = self._settings
        load = Load(
            generator=settings.generator,
            video=settings.video,
            image=settings.image,
            data_dir=str(settings.data_dir),
        )
        try:
            assert self._channel is not None  # noqa: S101 - set by the only caller
            self._channel.send(load)
        except OSError:
            logger.warning("the generator ended before it could load")

    def _receive(self, message: Ready | LoadFailed | Working | Log | Finished | Failed, pid: int) -> None:
        match message:
            case Ready():
                logger.info("generator %d: %s loaded in %.1f s", pid, message.model, message.seconds)
                self._state = GeneratorState("ready", message.model, pid)
                self._ready.set()
            case LoadFailed():
                logger.error("generator %d: %s", pid, message.message)
                self._state = GeneratorState("failed", message.message, None)
            case _:
                self._inbox.put(message)

    def _kill_if_loading(self, process: subprocess.Popen[bytes]) -> None:
        if self._process is process and not self._ready.is_set():
            limit = self._settings.generator.load_timeout_s
            self._state = GeneratorState("failed", f"the model did not load within {limit:g} s", None)
            process.kill()

    def _kill(self) -> None:
        self._ready.clear()
        process = self._process
        if process is not None and process.poll() is None:
            process.kill()


def _describe_exit(exit_code: int) -> str:
    return f"killed by signal {-exit_code}" if exit_code < 0 else f"ended with exit code {exit_code}"
