"""What the generator is doing, as the worker's heartbeat reports it."""

from dataclasses import dataclass
from enum import StrEnum


class Phase(StrEnum):
    """The values are those of the `worker` table and of the health answer."""

    LOADING = "loading"
    READY = "ready"
    IDLE = "idle"  # unloaded: the next request loads the model again
    FAILED = "failed"  # the model cannot be loaded; it is tried again


@dataclass(frozen=True, slots=True)
class GeneratorState:
    """A phase, a sentence about it, and the process that is in it."""

    phase: Phase
    detail: str
    pid: int | None = None
