"""What both ways of making a video have in common: whom they report to, and how they end."""

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from server.errors import ErrorResponse, ServerError


class Watcher(Protocol):
    """Is told how far the video is."""

    def show(self, what: str, done: int = 0, total: int = 0, *, left_s: float | None = None) -> None:
        """A stage and how much of it is done; `total` 0 where that is not known. `left_s`: seconds to the end."""

    def say(self, line: str) -> None:
        """A line of the request's log."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Video:
    """The MP4 at `path`. `seconds` of the GPU, where they are known; `request_id` and `url` where a server made it."""

    path: Path
    seed: int
    seconds: float | None
    request_id: str | None = None
    url: str | None = None


class RequestFailed(ServerError):
    """No video, for the reason that a client of the API is told."""

    def __init__(self, response: ErrorResponse) -> None:
        super().__init__(response.summary)
        self.response = response


_STEP = "Denoising step "  # a line for every step, which the bar shows already


def is_step(line: str) -> bool:
    """Whether a line of a request's log says nothing but how far it is."""
    return line.startswith(_STEP)
