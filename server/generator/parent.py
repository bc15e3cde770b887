"""The parent side of the generator: one child process, kept alive, one request at a time.

The child's death is a normal case: it ends the request it was working on and a new child is started.
"""

import logging
import queue
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import assert_never, get_args

from server.errors import ServerError
from server.generator.launch import start_generator_process
from server.generator.messages import (
    Cancel,
    Channel,
    Failed,
    Finished,
    Generate,
    Load,
    LoadFailed,
    Loading,
    Log,
    Ready,
    Working,
    from_generator,
)
from server.generator.watchdog import Patience
from server.settings import MemoryPlan, Settings

logger = logging.getLogger(__name__)

_TICK_S = 0.1  # how often a running request looks at its limits
_LONGEST_RESTART_DELAY_S = 60.0


class GeneratorDied(ServerError):
    """The child ended while it worked on the request."""


class GeneratorStalled(ServerError):
    """The child was silent for longer than the limit and was killed."""


class GenerationCancelled(ServerError):
    """The request was cancelled; the child is free again, or was killed."""


class GenerationError(ServerError):
    """The model raised; the same request would fail again."""


class OutOfMemory(ServerError):
    """The request does not fit into memory under the current memory plan."""


@dataclass(frozen=True, slots=True)
class _Died:
    """The end of a child, seen by the request that was running."""

    exit_code: int


@dataclass(frozen=True, slots=True)
class GeneratorState:
    """What the heartbeat reports: `loading`, `ready`, `idle` or `failed`, and a sentence about it."""

    name: str
    detail: str
    pid: int | None


class Generator:
    """Owns the child process. `start` once; `run` within `reserved`."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._plan: MemoryPlan = settings.generator.memory_plan
        self._state = GeneratorState("loading", "starting", None)
        self._ready = threading.Event()
        self._wanted = threading.Event()
        self._wanted.set()
        self._last_used = time.monotonic()
        self._last_failure: str | None = None  # why the child before did not load; said until one does
        self._inbox: queue.SimpleQueue[Working | Log | Finished | Failed | _Died] = queue.SimpleQueue()
        self._process: subprocess.Popen[bytes] | None = None
        self._channel: Channel[Ready | Loading | LoadFailed | Working | Log | Finished | Failed] | None = None
        self._reservation = threading.Lock()
        # Children are started by this thread alone, since the kernel ends them with the thread that started them.
        self._keeper = threading.Thread(target=self._keep_alive, name="generator-keeper", daemon=True)

    @property
    def state(self) -> GeneratorState:
        """What the child is doing."""
        return self._state

    @property
    def busy(self) -> bool:
        """Whether somebody has reserved it."""
        return self._reservation.locked()

    def start(self) -> None:
        """Start the child and keep one running from now on."""
        self._keeper.start()

    def wait_until_ready(self) -> None:
        """Block until a model is loaded, however long that takes: jobs stay queued meanwhile."""
        self._last_used = time.monotonic()
        self._wanted.set()
        self._ready.wait()

    @contextmanager
    def reserved(self) -> Iterator[bool]:
        """Nobody else uses the child meanwhile, nor unloads it; whether its model is loaded."""
        with self._reservation:
            yield self._ready.is_set()
            self._last_used = time.monotonic()

    def unload_if_idle(self) -> None:
        """End a child that nobody has used for the configured time; the next request loads it again."""
        limit = self._settings.generator.idle_unload_s
        if not limit or not self._reservation.acquire(blocking=False):
            return
        try:
            if self._ready.is_set() and time.monotonic() - self._last_used > limit:
                self._wanted.clear()
                self._kill()
        finally:
            self._reservation.release()

    def shrink(self) -> MemoryPlan | None:
        """Go on with the next smaller memory plan in a fresh child; None when this is the smallest."""
        plans: tuple[MemoryPlan, ...] = get_args(MemoryPlan)
        smaller = plans[plans.index(self._plan) + 1 :]
        if not smaller:
            return None
        self._plan = smaller[0]
        self._kill()
        return self._plan

    def run(
        self,
        job: Generate,
        *,
        on_message: Callable[[Working | Log], None],
        cancel_requested: Callable[[], bool],
    ) -> Finished:
        """Have the child make one video.

        Raises:
            GenerationCancelled, GenerationError, GeneratorStalled, GeneratorDied, OutOfMemory
        """
        self._drain_inbox()
        self._send(job)
        return self._follow(job, on_message, cancel_requested)

    def _follow(
        self, job: Generate, on_message: Callable[[Working | Log], None], cancel_requested: Callable[[], bool]
    ) -> Finished:
        patience = Patience(self._settings.generator, cancel_requested, look_every_s=self._settings.jobs.cancel_poll_s)
        while True:
            self._pass_cancel_on(patience, job)
            try:
                message = self._inbox.get(timeout=_TICK_S)
            except queue.Empty:
                self._enforce(patience)
                continue
            patience.saw(message)
            match message:
                case Working() | Log():
                    on_message(message)
                case Finished():
                    return message
                case Failed():
                    raise _failure(message)
                case _Died():
                    if patience.cancelled:
                        raise GenerationCancelled("cancelled; the generator ended")
                    raise GeneratorDied(_describe_exit(message.exit_code))
                case _:
                    assert_never(message)

    def _pass_cancel_on(self, patience: Patience, job: Generate) -> None:
        if patience.cancel_arrived():
            self._send(Cancel(request_id=job.request_id))
        if patience.cancel_ignored():
            self._kill()
            raise GenerationCancelled("cancelled; the generator did not react in time and was killed")

    def _enforce(self, patience: Patience) -> None:
        """End a child that has fallen silent; only when all that it has said is read."""
        limit = patience.stalled()
        if limit is not None:
            self._kill()
            raise GeneratorStalled(f"no progress for {limit:g} s; the generator was killed")

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
        first = delay = self._settings.generator.restart_delay_s
        while True:
            try:
                was_ready = self._live_once()
            except Exception as error:  # no memory for a process, say: this thread must outlive whatever it is
                logger.exception("the generator could not be kept running; trying again")
                self._state = GeneratorState("loading", f"restarting: {type(error).__name__}: {error}", None)
                was_ready = False
            delay = first if was_ready else min(delay * 2, _LONGEST_RESTART_DELAY_S)
            if not self._wanted.is_set():
                self._state = GeneratorState("idle", "unloaded until the next request", None)
                self._wanted.wait()
                self._state = GeneratorState("loading", "starting", None)
            elif delay:
                time.sleep(delay)

    def _live_once(self) -> bool:
        """One child from start to end; whether it ever was ready."""
        process, connection = start_generator_process()
        channel = Channel(connection, from_generator)
        self._process, self._channel = process, channel
        self._say_loading("loading the model", process.pid)
        overdue = threading.Timer(self._settings.generator.load_timeout_s, self._kill_if_loading, [process])
        overdue.daemon = True
        overdue.start()
        try:
            self._begin_loading(channel)
            for message in channel:
                self._receive(message, process.pid)
        except Exception:  # it says what nobody understands
            process.kill()
            raise
        finally:
            overdue.cancel()
            was_ready = self._state.name == "ready"
            self._ready.clear()
            channel.close()
            exit_code = process.wait()
            failed = self._state.name == "failed"
            if not was_ready:
                self._last_failure = self._state.detail if failed else _describe_exit(exit_code)
            if not failed:
                self._state = GeneratorState("loading", f"restarting: {_describe_exit(exit_code)}", None)
            logger.warning("generator %d: %s", process.pid, _describe_exit(exit_code))
            self._inbox.put(_Died(exit_code))
        return was_ready

    def _begin_loading(
        self, channel: Channel[Ready | Loading | LoadFailed | Working | Log | Finished | Failed]
    ) -> None:
        settings = self._settings
        load = Load(
            generator=settings.generator.model_copy(update={"memory_plan": self._plan}),
            video=settings.video,
            image=settings.image,
            data_dir=str(settings.data_dir),
        )
        try:
            channel.send(load)
        except OSError:
            logger.warning("the generator ended before it could load")

    def _receive(self, message: Ready | Loading | LoadFailed | Working | Log | Finished | Failed, pid: int) -> None:
        match message:
            case Ready():
                logger.info("generator %d: %s loaded in %.1f s", pid, message.model, message.seconds)
                self._last_failure = None
                self._state = GeneratorState("ready", message.model, pid)
                self._last_used = time.monotonic()
                self._ready.set()
            case Loading():
                self._say_loading(message.message, pid)
            case LoadFailed():
                logger.error("generator %d: %s", pid, message.message)
                self._state = GeneratorState("failed", message.message, None)
            case Finished() | Failed():
                if message.last:
                    self._ready.clear()  # the next request must not be given to a process that ends
                self._inbox.put(message)
            case Working() | Log():
                self._inbox.put(message)
            case _:
                assert_never(message)

    def _say_loading(self, how_far: str, pid: int) -> None:
        before = f"; before: {self._last_failure}" if self._last_failure else ""
        self._state = GeneratorState("loading", how_far + before, pid)

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


def _failure(message: Failed) -> ServerError:
    match message.reason:
        case "cancelled":
            return GenerationCancelled(message.message)
        case "out_of_memory":
            return OutOfMemory(message.message)
        case "error":
            return GenerationError(message.message)
        case _:
            assert_never(message.reason)


def _describe_exit(exit_code: int) -> str:
    return f"killed by signal {-exit_code}" if exit_code < 0 else f"ended with exit code {exit_code}"
