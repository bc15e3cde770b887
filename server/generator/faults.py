"""How a request ends in the generator without a video."""

from typing import Final, Literal, assert_never

from server.errors import ContentPolicyViolation, ErrorResponse, ServerError
from server.generator.messages import Failed, Where

# The field of the input that a finding belongs to; a video shows what its prompt asks for.
_BLAMED: Final[dict[Where, Literal["prompt", "negative_prompt", "image_url"]]] = {
    "prompt": "prompt",
    "negative_prompt": "negative_prompt",
    "image": "image_url",
    "frames": "prompt",
}


class GeneratorDied(ServerError):
    """The process ended while it worked on the request."""

    @property
    def log_line(self) -> str:
        """For the job's log."""
        return f"Generator lost: {self}"


class GeneratorStalled(ServerError):
    """The process was silent for longer than the limit and was killed."""

    @property
    def log_line(self) -> str:
        """For the job's log."""
        return f"Generator stalled: {self}"


class GenerationCancelled(ServerError):
    """The request was cancelled; the process is free again, or was killed."""


class GenerationError(ServerError):
    """The model raised; the same request would fail again."""


class OutOfMemory(ServerError):
    """The request does not fit into memory under the current memory plan."""


class DiskError(ServerError):
    """The disk did not take the video or a checkpoint: it is full, or cannot be written."""


class ContentFlagged(ServerError):
    """The safety checker found something, `where` it says; the generator is well."""

    def __init__(self, message: str, where: Where) -> None:
        super().__init__(message)
        self.where: Where = where

    @property
    def log_line(self) -> str:
        """For the request's log."""
        return f"The safety checker flagged the {self.where.replace('_', ' ')}: {self}"

    def response(self) -> ErrorResponse:
        """What the user is told."""
        return ContentPolicyViolation(_BLAMED[self.where]).response()


def fault_of(message: Failed) -> ServerError:
    """What the process itself says."""
    match message.reason:
        case "cancelled":
            return GenerationCancelled(message.message)
        case "out_of_memory":
            return OutOfMemory(message.message)
        case "disk":
            return DiskError(message.message)
        case "flagged":
            return ContentFlagged(message.message, message.where or "prompt")
        case "error":
            return GenerationError(message.message)
        case _:
            assert_never(message.reason)
