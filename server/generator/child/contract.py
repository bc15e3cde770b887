"""What a renderer is: the contract between the generator process and what makes the video in it."""

from collections.abc import Callable
from typing import Protocol, TypeAlias

from server.generator.messages import Generate, JobMessage, Load

Report: TypeAlias = Callable[[JobMessage], None]
OnLoading: TypeAlias = Callable[[str], None]  # told what is being loaded


class Renderer(Protocol):
    """Makes the video: the real one drives the pipeline, the fakes of the tests are named after their failure."""

    model: str

    def __init__(self, load: Load, on_loading: OnLoading) -> None:
        """Load the model; any exception means that it cannot be loaded."""

    def render(self, job: Generate, report: Report) -> None:
        """Write the MP4 to `job.output`, reporting every block, tile and step; `report` may raise to stop it."""


class Cancelled(Exception):
    """Raised by `report`: the request was cancelled."""


class OutOfMemory(Exception):
    """Raised by a renderer: the request does not fit."""


class DeviceLost(Exception):
    """Raised by a renderer: the GPU is in no state to go on; only a new process helps."""
