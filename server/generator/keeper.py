"""Keeps one generator process running: starts it, has it load the model, starts another when it has ended.

The end of the process is a normal case: the request it was working on hears of it, and a new process is started.
"""

import logging
import queue
import subprocess
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, TypeAlias, assert_never

from server.generator.launch import start_generator_process
from server.generator.messages import (
    Cancel,
    Channel,
    Failed,
    Finished,
    FromGenerator,
    Generate,
    JobMessage,
    Load,
    LoadFailed,
    Loading,
    Log,
    Preview,
    Ready,
    Working,
)
from server.generator.state import GeneratorState, Phase
from server.generator.watchdog import Patience
from server.logs import about_request, about_trace
from server.settings import MEMORY_PLANS, MemoryPlan, MemoryPlanChoice, Settings

logger = logging.getLogger(__name__)

_LONGEST_RESTART_DELAY_S: Final = 60.0
_LOOK_EVERY_S: Final = 1.0


@dataclass(frozen=True, slots=True)
class Died:
    """The end of the process, seen by the request that was running."""

    exit_code: int

    def __str__(self) -> str:
        if self.exit_code < 0:
            return f"killed by signal {-self.exit_code}"
        return f"ended with exit code {self.exit_code}"


Answer: TypeAlias = JobMessage | Finished | Failed | Died


class GeneratorKeeper:
    """One process after the other, on a thread of its own, which alone writes `state`.

    Any thread may end the process. `usable` says whether it may be given a request: that thread sets it when the model
    is loaded, and what ends the process clears it.
    """

    def __init__(
        self, settings: Settings, log: Path | None = None, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._settings = settings
        self._load_limit_s = settings.generator.load_timeout_s
        self._log = log
        self._clock = clock
        self._plan: MemoryPlanChoice = settings.generator.memory_plan
        self._plan_in_use: MemoryPlan | None = None
        self._state = GeneratorState(Phase.LOADING, "starting")
        self._usable = threading.Event()
        self._wanted = threading.Event()
        self._wanted.set()
        self._loaded_at = clock()
        self._last_failure: str | None = None  # why the process before did not load; reported until one does
        self._answers: queue.SimpleQueue[Answer] = queue.SimpleQueue()
        self._process: subprocess.Popen[bytes] | None = None
        self._channel: Channel[FromGenerator] | None = None
        self._job: Generate | None = None  # what it works on
        # Processes are started by this thread alone, since the kernel ends them with the thread that started them.
        self._thread = threading.Thread(target=self._keep_running, name="generator-keeper", daemon=True)

    @property
    def state(self) -> GeneratorState:
        """What the process is doing."""
        return self._state

    @property
    def usable(self) -> bool:
        """Whether the process may be given a request."""
        return self._usable.is_set()

    @property
    def loaded_at(self) -> float:
        """When the last process had its model loaded, on the monotonic clock."""
        return self._loaded_at

    @property
    def plan(self) -> MemoryPlan:
        """The memory plan of the process; what it made of "auto"."""
        return self._plan_in_use or (MEMORY_PLANS[0] if self._plan == "auto" else self._plan)

    def start(self) -> None:
        """Keep a process running from now on."""
        self._thread.start()

    def wait_until_usable(self) -> None:
        """Block until a model is loaded, however long that takes."""
        self._wanted.set()
        while not self._usable.wait(_LOOK_EVERY_S):
            self._wanted.set()  # it may have been unloaded meanwhile

    def unload(self) -> None:
        """End the process; there is none until one is waited for."""
        self._wanted.clear()
        self.kill()

    def restart_with(self, plan: MemoryPlan) -> None:
        """End the process; the next one has another memory plan."""
        self._plan, self._plan_in_use = plan, None
        self.kill()

    def kill(self) -> None:
        """End the process; another is started."""
        self._usable.clear()
        process = self._process
        if process is not None and process.poll() is None:
            process.kill()

    def send(self, message: Generate | Cancel) -> None:
        """Give the process a message; one that has ended does not get it, nor does the one that follows it.

        That would render for a request that has gone on without it, and its answers would be taken for the next one's.
        """
        channel = self._channel  # before the question: it is of the process that was usable, or closed
        if channel is None or not self.usable:
            return
        if isinstance(message, Generate):
            self._job = message
        try:
            channel.send(message)
        except OSError:
            self._job = None
            logger.warning("the generator is gone; its end will be seen by the reader")

    def next_answer(self, timeout_s: float) -> Answer | None:
        """What the process has said about its request; None when it says nothing for so long."""
        try:
            return self._answers.get(timeout=timeout_s)
        except queue.Empty:
            return None

    def forget_answers(self) -> None:
        """Drop what an earlier request left; a death among it is of the process before, unless none is usable now."""
        while not self._answers.empty():
            self._answers.get_nowait()
        if not self.usable:
            self._answers.put(Died(-1))

    def _keep_running(self) -> None:
        first = delay = self._settings.generator.restart_delay_s
        while True:
            try:
                was_loaded = self._run_process()
            except Exception as error:  # no memory for a process, say: this thread has to go on
                logger.exception("the generator could not be kept running; trying again")
                self._state = GeneratorState(Phase.LOADING, f"restarting: {type(error).__name__}: {error}")
                was_loaded = False
            delay = first if was_loaded else min(delay * 2, _LONGEST_RESTART_DELAY_S)
            if delay and self._wanted.is_set():
                time.sleep(delay)
            if not self._wanted.is_set():  # or not any more
                self._state = GeneratorState(Phase.IDLE, "unloaded until the next request")
                self._wanted.wait()
                self._state = GeneratorState(Phase.LOADING, "starting")

    def _run_process(self) -> bool:
        """One process from start to end; whether its model was ever loaded."""
        process, channel = start_generator_process(self._log)
        ended, overdue = threading.Event(), threading.Event()
        limit = threading.Thread(
            target=self._kill_unless_loaded, args=(process, ended, overdue), name="generator-limit", daemon=True
        )
        try:
            self._process, self._channel = process, channel
            self._say_loading("loading the model", process.pid)
            limit.start()
            self._begin_loading(channel)
            for message in channel:
                self._receive(message, process.pid)
        except Exception:  # it says what cannot be understood, or there is no thread for its limit
            process.kill()
            raise
        finally:
            ended.set()
            self._usable.clear()
            channel.close()
            died = Died(process.wait())
            was_loaded = self._state.phase is Phase.READY
            if overdue.is_set() and not was_loaded:
                self._state = GeneratorState(Phase.FAILED, f"the model did not load within {self._load_limit_s:g} s")
            failed = self._state.phase is Phase.FAILED
            if not was_loaded:
                self._last_failure = self._state.detail if failed else str(died)
            if not failed:
                self._state = GeneratorState(Phase.LOADING, f"restarting: {died}")
            with ExitStack() as about:
                if self._job is not None:
                    about.enter_context(about_request(self._job.request_id))
                    about.enter_context(about_trace(self._job.trace_id))
                logger.warning("generator %d: %s", process.pid, died)
            self._job = None
            self._answers.put(died)
        return was_loaded

    def _begin_loading(self, channel: Channel[FromGenerator]) -> None:
        settings = self._settings
        load = Load(
            generator=settings.generator.model_copy(update={"memory_plan": self._plan}),
            prompt=settings.prompt,
            video=settings.video,
            image=settings.image,
            safety=settings.safety,
            data_dir=str(settings.data_dir),
            log_format=settings.log.format,
            made_room=self._plan != settings.generator.memory_plan,
        )
        try:
            channel.send(load)
        except OSError:
            logger.warning("the generator ended before it could load")

    def _receive(self, message: FromGenerator, pid: int) -> None:
        match message:
            case Ready():
                logger.info("generator %d: %s loaded in %.1f s", pid, message.model, message.seconds)
                self._last_failure = None
                self._plan_in_use = message.memory_plan
                self._state = GeneratorState(Phase.READY, message.model, pid, message.gpu_memory)
                self._loaded_at = self._clock()
                self._usable.set()
            case Loading():
                self._say_loading(message.message, pid)
            case LoadFailed():
                logger.error("generator %d: %s", pid, message.message)
                self._state = GeneratorState(Phase.FAILED, message.message)
            case Finished() | Failed():
                self._job = None
                if isinstance(message, Finished):
                    self._state = replace(self._state, gpu_memory=message.gpu_memory)
                if message.last:
                    self._usable.clear()  # the next request must not be given to a process that ends
                self._answers.put(message)
            case Working() | Log() | Preview():
                self._answers.put(message)
            case _:
                assert_never(message)

    def _say_loading(self, how_far: str, pid: int) -> None:
        before = f"; before: {self._last_failure}" if self._last_failure else ""
        self._state = GeneratorState(Phase.LOADING, how_far + before, pid)

    def _kill_unless_loaded(
        self, process: subprocess.Popen[bytes], ended: threading.Event, overdue: threading.Event
    ) -> None:
        """On a thread of its own; what it means for the state is for the keeper's thread to say."""
        loading = Patience(self._clock)
        while not ended.wait(min(_LOOK_EVERY_S, self._load_limit_s)) and not self.usable:
            if loading.look() > self._load_limit_s:
                overdue.set()
                process.kill()
                return
