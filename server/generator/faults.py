"""How a request ends in the generator without a video, and what its sender is told if it is not tried again."""

from typing import ClassVar, Final, Literal, assert_never

from server.errors import (
    ContentPolicyViolation,
    ErrorResponse,
    ServerError,
    TryAgainLater,
    model_failure,
    request_failure,
)
from server.generator.messages import Failed, Where

# The field of the input that a finding belongs to; a video shows what its prompt asks for.
_BLAMED: Final[dict[Where, Literal["prompt", "negative_prompt", "image_url"]]] = {
    "prompt": "prompt",
    "negative_prompt": "negative_prompt",
    "image": "image_url",
    "frames": "prompt",
}


class GenerationCancelled(ServerError):
    """The request was cancelled; the process is free again, or was killed."""


class GenerationFault(ServerError):
    """The generator or its machine could not make the video."""

    told: ClassVar[ErrorResponse]

    def response(self) -> ErrorResponse:
        """What the sender is told."""
        return self.told


class GeneratorDied(GenerationFault):
    """The process ended while it worked on the request."""

    told = request_failure(503, "runner_disconnected", "The generator stopped while working on this request")

    @property
    def log_line(self) -> str:
        """For the job's log."""
        return f"Generator lost: {self}"


class GeneratorStalled(GenerationFault):
    """The process was silent for longer than the limit and was killed."""

    told = request_failure(504, "request_timeout", "The generator made no progress and was stopped")

    @property
    def log_line(self) -> str:
        """For the job's log."""
        return f"Generator stalled: {self}"


class GenerationError(GenerationFault):
    """The model raised; the same request would fail again."""

    told = model_failure(500, "internal_server_error", "Internal server error", ("body",))


class OutOfMemory(GenerationFault):
    """The request does not fit into memory under the current memory plan."""

    told = request_failure(503, "runner_server_error", "CUDA error: out of memory")


class DiskError(GenerationFault):
    """The disk did not take the video or a checkpoint: it is full, or cannot be written."""

    told = TryAgainLater().response()


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
        """What the sender is told."""
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
