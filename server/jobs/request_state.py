"""How a request is doing, in words that say of an end what kind it was; without a database."""

from enum import StrEnum
from typing import Final

from server.jobs.job import Status
from server.jobs.outcomes import CANCELLED

LONGEST_LIST: Final = 10_000  # requests at once, about 5 MB as JSON: for the command and the route that list them


class State(StrEnum):
    """Other than in fal's words, an end says what kind it was."""

    WAITING = "waiting"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"


def state_of(status: str, error_type: str | None) -> State:
    """From the columns of a request."""
    if status == Status.IN_QUEUE:
        return State.WAITING
    if status == Status.IN_PROGRESS:
        return State.RUNNING
    if error_type is None:
        return State.SUCCEEDED
    return State.CANCELLED if error_type == CANCELLED.error_type else State.FAILED
