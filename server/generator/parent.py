"""The generator as the worker uses it: one request at a time, watched while it runs."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, assert_never

from server.generator.faults import GenerationCancelled, GeneratorDied, GeneratorStalled, fault_of
from server.generator.keeper import Died, GeneratorKeeper
from server.generator.messages import Cancel, Failed, Finished, Generate, JobMessage, Log, Preview, Working
from server.generator.state import GeneratorState, Phase
from server.generator.watchdog import Watchdog
from server.settings import MEMORY_PLANS, MemoryPlan, Settings

_TICK_S: Final = 0.1  # how often a running request looks at its limits
_LAST_START_S: Final = 5.0


class Generator:
    """The process behind it is kept running by its keeper. `start` once; `run` within `reserved`.

    `log` is a file for what the process writes to stderr, by default ours.
    """

    def __init__(self, settings: Settings, *, log: Path | None = None) -> None:
        self._settings = settings
        self._keeper = GeneratorKeeper(settings, log)
        self._last_used = time.monotonic()
        self._reservation = threading.Lock()

    @property
    def state(self) -> GeneratorState:
        """What the process is doing."""
        return self._keeper.state

    @property
    def usable(self) -> bool:
        """Whether its model is loaded."""
        return self._keeper.usable

    @property
    def busy(self) -> bool:
        """Whether it is reserved."""
        return self._reservation.locked()

    def start(self) -> None:
        """Start the process and keep one running from now on."""
        self._keeper.start()

    def wait_until_ready(self) -> None:
        """Block until a model is loaded, however long that takes: jobs stay queued meanwhile."""
        self._last_used = time.monotonic()
        self._keeper.wait_until_usable()

    @contextmanager
    def reserved(self) -> Iterator[bool]:
        """No other request uses the process meanwhile, nor is it unloaded; yields whether its model is loaded."""
        with self._reservation:
            try:
                yield self._keeper.usable
            finally:
                self._last_used = time.monotonic()

    def close(self) -> None:
        """End the process and have no other take its place; one that is just being started may need a moment."""
        deadline = time.monotonic() + _LAST_START_S
        while self._keeper.state.phase is not Phase.IDLE and time.monotonic() < deadline:
            self._keeper.unload()
            time.sleep(_TICK_S / 10)

    def unload_if_idle(self) -> None:
        """End a process that has not been used for the configured time; the next request loads it again."""
        limit = self._settings.generator.idle_unload_s
        if not limit or not self._reservation.acquire(blocking=False):
            return
        try:
            idle_since = max(self._last_used, self._keeper.loaded_at)
            if self._keeper.usable and time.monotonic() - idle_since > limit:
                self._keeper.unload()
        finally:
            self._reservation.release()

    def shrink(self) -> MemoryPlan | None:
        """Go on with the next smaller memory plan in a fresh process; None when this is the smallest."""
        smaller = MEMORY_PLANS[MEMORY_PLANS.index(self._keeper.plan) + 1 :]
        if not smaller:
            return None
        self._keeper.restart_with(smaller[0])
        return smaller[0]

    def run(
        self,
        job: Generate,
        *,
        on_message: Callable[[JobMessage], None],
        cancel_requested: Callable[[], bool],
    ) -> Finished:
        """Have the process make one video.

        Raises:
            GenerationCancelled, GenerationError, GeneratorStalled, GeneratorDied, OutOfMemory, DiskError,
            ContentFlagged
        """
        self._keeper.forget_answers()
        self._keeper.send(job)
        watchdog = Watchdog(self._settings.generator, cancel_requested, look_every_s=self._settings.jobs.cancel_poll_s)
        while True:
            self._pass_cancel_on(watchdog, job)
            answer = self._keeper.next_answer(_TICK_S)
            if answer is None:  # all that it has said is read
                self._kill_if_stalled(watchdog)
                continue
            watchdog.heard(answer)
            match answer:
                case Working() | Log() | Preview():
                    on_message(answer)
                case Finished():
                    return answer
                case Failed():
                    raise fault_of(answer)
                case Died():
                    if watchdog.cancelled:
                        raise GenerationCancelled("cancelled; the generator ended")
                    raise GeneratorDied(str(answer))
                case _:
                    assert_never(answer)

    def _pass_cancel_on(self, watchdog: Watchdog, job: Generate) -> None:
        if watchdog.cancel_arrived():
            self._keeper.send(Cancel(request_id=job.request_id))
        if watchdog.cancel_ignored():
            self._keeper.kill()
            raise GenerationCancelled("cancelled; the generator did not react in time and was killed")

    def _kill_if_stalled(self, watchdog: Watchdog) -> None:
        limit = watchdog.stalled()
        if limit is not None:
            self._keeper.kill()
            raise GeneratorStalled(f"no progress for {limit:g} s; the generator was killed")
