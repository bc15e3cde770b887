"""How both ways of making a video end."""

from dataclasses import dataclass
from pathlib import Path

from server.errors import ErrorResponse, ServerError


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
        self._response = response

    def response(self) -> ErrorResponse:
        """As that of errors which are raised here."""
        return self._response
