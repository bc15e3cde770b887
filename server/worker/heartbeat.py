"""A worker's row in the registry: what its generator is doing, written often enough that the worker counts as alive."""

import os
import time
from collections.abc import Callable

from server.generator.parent import Generator
from server.generator.state import WORKER_STOPPING, GeneratorState
from server.jobs.worker_registry import WorkerRegistry


class Heartbeat:
    """Due every `every_s` seconds, and at once when the generator's state has changed."""

    def __init__(
        self,
        registry: WorkerRegistry,
        generator: Generator,
        *,
        worker_id: str,
        every_s: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._registry = registry
        self._generator = generator
        self._worker_id = worker_id
        self._every_s = every_s
        self._clock = clock
        self._stopping = False
        self._reported: GeneratorState | None = None
        self._reported_at = -float("inf")

    def stop(self) -> None:
        """From now on this worker takes no jobs, whatever its generator could."""
        self._stopping = True

    @property
    def due(self) -> bool:
        """Whether it is time for the next one; one that failed is due again."""
        return self._generator.state != self._reported or self._clock() - self._reported_at >= self._every_s

    def beat(self) -> bool:
        """Write the row; returns whether the worker has been asked to take no more jobs."""
        state = WORKER_STOPPING if self._stopping else self._generator.state
        now = self._clock()  # what is written is as old as this: after a pause in between the next one is due
        draining = self._registry.beat(
            self._worker_id, pid=os.getpid(), generator_pid=state.pid, state=state.phase.value, detail=state.detail
        )
        self._reported, self._reported_at = state, now
        return draining
