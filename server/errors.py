"""The error tree, and the one place where an error becomes an HTTP status and a body.

ServerError
├── SettingsError             stops the start; never reaches a client
├── StorageAway               to a client as TryAgainLater
├── RequestError              fal's request errors: {"detail": str, "error_type": str} + X-Fal-Error-Type
│   ├── NotFound              404, the one answer for unknown, foreign and malformed ids
│   ├── BadRequest            400
│   ├── BodyTooLarge          413
│   ├── BodyTooSlow           400, never 408: clients retry a 408
│   ├── HeadersTooLarge       431
│   ├── BadRange              416, a Range that cannot be read or that a file does not have
│   ├── Unauthorized          401
│   ├── Forbidden             403, a foreign website behind the browser of a user of a server without keys
│   ├── RetryLater            + Retry-After
│   │   ├── TooManyRequests   429, a limit
│   │   │   └── QueueTooLong  429, longer than fal_max_queue_length
│   │   ├── Overloaded        503
│   │   └── TryAgainLater     503, the database or the object store is away
│   ├── StillInProgress       400
│   ├── AlreadyCompleted      400
│   ├── Cancelled             499, the result of a cancelled request
│   ├── StartTimeout          504, the start deadline passed in the queue
│   ├── Gone                  410, a video past its retention
│   ├── Restarting            503, to a sync caller
│   ├── RunnerDisconnected    503, the generator died
│   ├── RunnerStalled         504, the generator fell silent
│   ├── GpuOutOfMemory        503, also with the smallest memory plan
│   ├── InsufficientStorage   503, refused at submit
│   └── InternalError         500
└── ModelError                fal's model errors: {"detail": [{"loc", "msg", "type", ...}]}
    ├── InvalidInput          422, a list made by pydantic
    ├── ImageLoadError, UnsupportedImageFormat, ImageTooSmall, ImageTooLarge, FileTooLarge, FileDownloadError   422
    ├── UnsupportedUpload     422
    └── GenerationFailed      500
Errors that never leave their process stand where they are raised: `generator/parent.py`, `db/outage.py`, `api/keys.py`.
Sources: fal_protocol (the wire), https://docs.fal.ai/errors for types and messages.
"""

import math
from dataclasses import dataclass, field
from typing import Any, ClassVar

ERROR_DOCS = "https://docs.fal.ai/errors#"


@dataclass(frozen=True)
class ErrorResponse:
    """What a failed request answers: kept in the job's row, sent by the result route and the webhook."""

    status: int
    body: dict[str, Any]
    error_type: str
    headers: dict[str, str] = field(default_factory=dict)

    @property
    def summary(self) -> str:
        """One line for `error` in the status answer."""
        detail = self.body.get("detail", self.error_type)
        return detail if isinstance(detail, str) else f"Invalid status code: {self.status}"


class ServerError(Exception):
    """Base of all errors this package raises."""


class SettingsError(ServerError):
    """A setting is missing, unknown or out of range."""


class RequestError(ServerError):
    """A request that failed for reasons other than the model's input."""

    status: ClassVar[int] = 500
    error_type: ClassVar[str] = "internal_error"
    detail: ClassVar[str] = "Internal Server Error"

    def __init__(self, detail: str | None = None) -> None:
        super().__init__(detail or self.detail)

    def response(self) -> ErrorResponse:
        """The status, body and headers of this error."""
        body = {"detail": str(self), "error_type": self.error_type}
        return ErrorResponse(self.status, body, self.error_type, {"X-Fal-Error-Type": self.error_type})


class NotFound(RequestError):
    """No such request for this owner."""

    status, error_type, detail = 404, "not_found", "Request not found"

    def response(self) -> ErrorResponse:
        """Decision 7: one body for unknown, foreign and malformed ids."""
        return ErrorResponse(404, {"detail": str(self), "status": "NOT_FOUND"}, self.error_type)


class BadRequest(RequestError):
    """A header or parameter that cannot be read."""

    status, error_type, detail = 400, "bad_request", "Bad request"


class BodyTooLarge(RequestError):
    """The body is larger than the server accepts."""

    status, error_type, detail = 413, "bad_request", "Request body too large"


class BodyTooSlow(RequestError):
    """The body did not arrive in time. Not 408: fal's client would send it again, ten times."""

    status, error_type, detail = 400, "bad_request", "Request body did not arrive in time"


class HeadersTooLarge(RequestError):
    """Request line and headers are longer than the server accepts."""

    status, error_type, detail = 431, "bad_request", "Request headers too large"


class BadRange(RequestError):
    """A Range header that cannot be read, or that asks for what is not there."""

    status, error_type, detail = 416, "bad_request", "Range not satisfiable"

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size

    def response(self) -> ErrorResponse:
        """With the size of the file, from which a sender can make a better one."""
        plain = super().response()
        size = {"Content-Range": f"bytes */{self.size}"}
        return ErrorResponse(plain.status, plain.body, plain.error_type, {**plain.headers, **size})


class Unauthorized(RequestError):
    """No key, or one that nobody has. The text is fal's; the body has no error_type there."""

    status, error_type, detail = 401, "unauthorized", "No user found for Key ID and Secret"

    def response(self) -> ErrorResponse:
        """fal's gateway answers a bare detail."""
        return ErrorResponse(401, {"detail": str(self)}, self.error_type, {"WWW-Authenticate": "Key"})


class Forbidden(RequestError):
    """A name or an origin that a server without keys does not answer to."""

    status, error_type, detail = 403, "forbidden", "Host not allowed"


class RetryLater(RequestError):
    """Not now; fal's clients try some of these again by themselves."""

    def __init__(self, detail: str | None = None, *, retry_after_s: float = 1.0) -> None:
        super().__init__(detail)
        self.retry_after_s = retry_after_s

    def response(self) -> ErrorResponse:
        """With the time after which it makes sense to try again."""
        plain = super().response()
        wait = {"Retry-After": str(max(1, math.ceil(self.retry_after_s)))}
        return ErrorResponse(plain.status, plain.body, plain.error_type, {**plain.headers, **wait})


class TooManyRequests(RetryLater):
    """A limit of the owner or of the queue is reached."""

    status, error_type, detail = 429, "too_many_requests", "Too many requests"


class QueueTooLong(TooManyRequests):
    """More requests wait than the sender accepts."""

    detail = "The queue is longer than fal_max_queue_length"


class Overloaded(RetryLater):
    """The server has no memory left for this body."""

    status, error_type, detail = 503, "runner_scheduling_failure", "The server is busy, try again"


class TryAgainLater(RetryLater):
    """A part behind this server is away; whatever was accepted is safe."""

    status, error_type, detail = 503, "internal_error", "The server cannot reach its database or storage, try again"


class StorageAway(ServerError):
    """The object store did not answer, or answered that it cannot; the same call may succeed later."""


class StillInProgress(RequestError):
    """The result was asked for before the request finished."""

    status, error_type, detail = 400, "bad_request", "Request is still in progress"


class AlreadyCompleted(RequestError):
    """A finished request cannot be cancelled."""

    status, error_type, detail = 400, "bad_request", "Request already completed"

    def response(self) -> ErrorResponse:
        """Cancel answers a status, not a detail."""
        return ErrorResponse(400, {"status": "ALREADY_COMPLETED"}, self.error_type)


class Cancelled(RequestError):
    """The result of a cancelled request."""

    status, error_type, detail = 499, "client_cancelled", "Request cancelled by the client."


class StartTimeout(RequestError):
    """The request did not start before the deadline its sender gave."""

    status, error_type, detail = 504, "request_timeout", "Request timed out"

    def response(self) -> ErrorResponse:
        """fal marks deadlines that the user set, so that clients do not retry."""
        plain = super().response()
        return ErrorResponse(
            plain.status, plain.body, plain.error_type, {**plain.headers, "X-Fal-Request-Timeout-Type": "user"}
        )


class Gone(RequestError):
    """A file that was here and was removed in time."""

    status, error_type, detail = 410, "expired", "File expired"


class Restarting(RequestError):
    """The server stops before the answer of a sync run is there."""

    status, error_type, detail = 503, "runner_disconnected", "The server is restarting, send the request again"


class RunnerDisconnected(RequestError):
    """The generator process died while it worked on this request."""

    status, error_type, detail = 503, "runner_disconnected", "The generator stopped while working on this request"


class RunnerStalled(RequestError):
    """The generator made no progress within the stall limit."""

    status, error_type, detail = 504, "request_timeout", "The generator made no progress and was stopped"


class GpuOutOfMemory(RequestError):
    """The request does not fit the GPU, not even with the smallest memory plan."""

    status, error_type, detail = 503, "runner_server_error", "CUDA error: out of memory"


class InsufficientStorage(RequestError):
    """The disk is nearly full: a job that cannot store its video is not accepted."""

    status, error_type, detail = 503, "internal_error", "The server's disk is full; try again later"


class InternalError(RequestError):
    """An unexpected error of this server."""


class ModelError(ServerError):
    """An input the model cannot use, or a generation that failed, in fal's list form."""

    status: ClassVar[int] = 422
    error_type: ClassVar[str] = "value_error"
    message: ClassVar[str] = "Invalid input"
    loc: ClassVar[tuple[str, ...]] = ("body", "image_url")

    def __init__(self, message: str | None = None, *, ctx: dict[str, Any] | None = None) -> None:
        super().__init__(message or self.message)
        self.ctx = ctx

    def response(self) -> ErrorResponse:
        """The status and body of this error; never retryable, since the same input fails again."""
        item: dict[str, Any] = {"loc": list(self.loc), "msg": str(self), "type": self.error_type}
        item["url"] = f"{ERROR_DOCS}{self.error_type}"
        if self.ctx:
            item["ctx"] = self.ctx
        return ErrorResponse(self.status, {"detail": [item]}, self.error_type, {"X-Fal-Retryable": "false"})


class InvalidInput(ModelError):
    """The body does not match the schema; `detail` is the list FastAPI would send."""

    def __init__(self, detail: list[dict[str, Any]]) -> None:
        super().__init__("Invalid input")
        self.detail = detail

    def response(self) -> ErrorResponse:
        """fal bills nothing for a validation error and says so."""
        return ErrorResponse(422, {"detail": self.detail}, "validation_error", {"x-fal-billable-units": "0"})


class ImageLoadError(ModelError):
    """Bytes that are no readable image."""

    error_type = "image_load_error"
    message = "Failed to load the image. Please ensure the image file is not corrupted and is in a supported format."


class UnsupportedImageFormat(ModelError):
    """An image, but not of a format we accept."""

    error_type = "unsupported_image_format"
    message = "Unsupported image format. Supported formats are .jpg, .jpeg, .png, .webp."

    def __init__(self) -> None:
        super().__init__(ctx={"supported_formats": [".jpg", ".jpeg", ".png", ".webp"]})


class UnsupportedUpload(UnsupportedImageFormat):
    """An upload that is no image; the same words, another place."""

    loc = ("body",)


class ImageTooSmall(ModelError):
    """A side below the limit."""

    error_type, message = "image_too_small", "Image too small"


class ImageTooLarge(ModelError):
    """A side or the pixel count above the limit."""

    error_type, message = "image_too_large", "Image too large"


class FileTooLarge(ModelError):
    """More bytes than accepted."""

    error_type, message = "file_too_large", "File too large"


class FileDownloadError(ModelError):
    """The URL gave no file; the message never says what was reached."""

    error_type = "file_download_error"
    message = "Failed to download the file. Please check if the URL is accessible and try again."


class GenerationFailed(ModelError):
    """The model raised: the same request would fail again, so it is not retried."""

    status, error_type, message, loc = 500, "internal_server_error", "Internal server error", ("body",)
