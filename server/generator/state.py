"""What the generator is doing, as the worker's heartbeat reports it."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from pydantic import BaseModel, ConfigDict


class Phase(StrEnum):
    """The values are those of the `worker` table and of the health answer."""

    LOADING = "loading"
    READY = "ready"
    IDLE = "idle"  # unloaded: the next request loads the model again
    FAILED = "failed"  # the model cannot be loaded; it is tried again
    STOPPED = "stopped"  # the worker has ended, or takes no jobs because it is about to


TAKES_JOBS: Final = frozenset({Phase.READY, Phase.IDLE})
"""Phases of a worker that a waiting job is rendered by; one that drains takes none all the same."""


class GpuMemory(BaseModel):
    """Bytes of the GPU of one rank: in use by anything, the most that the process has held, and all there is."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    gpu: int
    used_bytes: int
    peak_bytes: int
    total_bytes: int


@dataclass(frozen=True, slots=True)
class GeneratorState:
    """A phase, a sentence about it, the process that is in it, and the memory that it was last seen to use."""

    phase: Phase
    detail: str
    pid: int | None = None
    gpu_memory: tuple[GpuMemory, ...] = ()


WORKER_STOPPED: Final = GeneratorState(Phase.STOPPED, "the worker has stopped")
WORKER_STOPPING: Final = GeneratorState(Phase.STOPPED, "the worker is stopping")
