"""The errors of this server, and what a client is told about each.

ServerError
├── SettingsError             stops the start or a command; never reaches a client
├── StorageAway               to a client as TryAgainLater
├── RequestError              {"detail": str, "error_type": str} + X-Fal-Error-Type
│   ├── BadRequest            400
│   ├── BodyTooSlow           400
│   ├── StillInProgress       400
│   ├── AlreadyCompleted      400
│   ├── Unauthorized          401
│   ├── Forbidden             403
│   ├── NotFound              404
│   ├── UnknownApplication    404
│   ├── Gone                  410
│   ├── BodyTooLarge          413
│   ├── BadRange              416
│   ├── HeadersTooLarge       431
│   └── RetryLater            + Retry-After
│       ├── InsufficientStorage 503
│       ├── TooManyRequests   429
│       │   └── QueueTooLong  429
│       ├── Overloaded        503
│       └── TryAgainLater     503
└── ModelError                {"detail": [{"loc", "msg", "type", "url"}]}
    ├── InvalidInput          422
    ├── ContentPolicyViolation  422
    ├── ImageLoadError        422
    ├── UnsupportedImageFormat  422
    │   └── UnsupportedUpload   422
    ├── ImageTooSmall         422
    ├── ImageTooLarge         422
    ├── FileTooLarge          422
    └── FileDownloadError     422

`response()` turns an error into its `ErrorResponse`. Failures that are never raised, like that of a cancelled request,
are `ErrorResponse`s from the beginning (`jobs/outcomes.py`). Errors that never leave their process are defined where
they are raised: `generator/faults.py`, `db/outage.py`, `api/access/key_table.py`.
Sources: fal_protocol (the wire), https://docs.fal.ai/errors for types and messages.
"""

import errno
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Final, Literal

ERROR_DOCS = "https://docs.fal.ai/errors#"


@dataclass(frozen=True)
class ErrorResponse:
    """How a failed request is answered: kept in the job's row, sent by the result route and the webhook."""

    status: int
    body: dict[str, Any]
    error_type: str
    headers: dict[str, str] = field(default_factory=dict)

    @property
    def summary(self) -> str:
        """One line for `error` in the status answer."""
        detail = self.body.get("detail", self.error_type)
        return detail if isinstance(detail, str) else f"Invalid status code: {self.status}"


def request_failure(
    status: int, error_type: str, detail: str, headers: Mapping[str, str] | None = None
) -> ErrorResponse:
    """fal's form of errors that are not about the model's input."""
    body = {"detail": detail, "error_type": error_type}
    return ErrorResponse(status, body, error_type, {"X-Fal-Error-Type": error_type, **(headers or {})})


def model_failure(
    status: int, error_type: str, message: str, loc: tuple[str, ...], ctx: dict[str, Any] | None = None
) -> ErrorResponse:
    """fal's form of errors of the model and its input; never retryable, since the same input fails again."""
    item: dict[str, Any] = {"loc": list(loc), "msg": message, "type": error_type, "url": f"{ERROR_DOCS}{error_type}"}
    if ctx:
        item["ctx"] = ctx
    return ErrorResponse(status, {"detail": [item]}, error_type, {"X-Fal-Retryable": "false"})


def reasons(body: Mapping[str, Any]) -> list[str]:
    """What the body of an error says, which may be another server's; of places in the input as `field: message`."""
    detail = body.get("detail", [])
    return [_reason(item) for item in (detail if isinstance(detail, list) else [detail])]


def _reason(item: object) -> str:
    if not isinstance(item, dict):
        return str(item)
    loc, message = item.get("loc"), str(item.get("msg", item))
    return f"{loc[-1]}: {message}" if isinstance(loc, list) and len(loc) > 1 else message


INTERNAL_ERROR: Final = request_failure(500, "internal_error", "Internal Server Error")


_DISK_ERRORS: Final = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO}
_NO_SPACE: Final = os.strerror(errno.ENOSPC)


class ServerError(Exception):
    """Base of all errors this package raises."""


class SettingsError(ServerError):
    """A setting is missing, unknown or out of range."""


class StorageAway(ServerError):
    """The object store did not answer, or answered that it cannot; the same call may succeed later."""


def is_disk_error(error: BaseException) -> bool:
    """Whether the disk was the reason: full, read-only or broken. The same call may succeed later."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError) and cause.errno in _DISK_ERRORS:
            return True
        if _NO_SPACE in str(cause):  # the words of a program that was started, such as ffmpeg
            return True
        cause = cause.__cause__
    return False


class RequestError(ServerError):
    """A request that failed for reasons other than the model's input."""

    status: ClassVar[int]
    error_type: ClassVar[str] = "bad_request"
    detail: ClassVar[str]

    def __init__(self, detail: str | None = None) -> None:
        super().__init__(detail or self.detail)

    def headers(self) -> dict[str, str]:
        """What this error adds to the headers."""
        return {}

    def response(self) -> ErrorResponse:
        """The status, body and headers of this error."""
        return request_failure(self.status, self.error_type, str(self), self.headers())


class BadRequest(RequestError):
    """A header or parameter that cannot be read."""

    status, detail = 400, "Bad request"


class BodyTooSlow(RequestError):
    """The body did not arrive in time. Not 408: fal's client would send it again, ten times."""

    status, detail = 400, "Request body did not arrive in time"


class StillInProgress(RequestError):
    """The result was asked for before the request finished."""

    status, detail = 400, "Request is still in progress"


class AlreadyCompleted(RequestError):
    """A finished request cannot be cancelled."""

    status, detail = 400, "Request already completed"

    def response(self) -> ErrorResponse:
        """Cancel answers a status, not a detail."""
        return ErrorResponse(self.status, {"status": "ALREADY_COMPLETED"}, self.error_type)


class Unauthorized(RequestError):
    """No key, or an unknown one."""

    status, error_type, detail = 401, "unauthorized", "No user found for Key ID and Secret"

    def response(self) -> ErrorResponse:
        """fal's gateway answers a bare detail."""
        return ErrorResponse(self.status, {"detail": str(self)}, self.error_type, {"WWW-Authenticate": "Key"})


class Forbidden(RequestError):
    """A host name or a web page that a server without keys does not answer to."""

    status, error_type, detail = 403, "forbidden", "Host not allowed"


class NotFound(RequestError):
    """No such request for this owner: one answer for unknown ids, malformed ones and those of other owners."""

    status, error_type, detail = 404, "not_found", "Request not found"

    def response(self) -> ErrorResponse:
        """fal answers a status as well."""
        return ErrorResponse(self.status, {"detail": str(self), "status": "NOT_FOUND"}, self.error_type)


class UnknownApplication(RequestError):
    """There is one application here, and it is not the one that was named."""

    status, error_type, detail = 404, "not_found", "Application not found"


class Gone(RequestError):
    """A file that was here and has expired."""

    status, error_type, detail = 410, "expired", "File expired"


class BodyTooLarge(RequestError):
    """The body is larger than the server accepts."""

    status, detail = 413, "Request body too large"


class BadRange(RequestError):
    """A Range header that cannot be read or that the file does not have."""

    status, detail = 416, "Range not satisfiable"

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size

    def headers(self) -> dict[str, str]:
        """The size of the file, from which a client can make a better one."""
        return {"Content-Range": f"bytes */{self.size}"}


class HeadersTooLarge(RequestError):
    """Request line and headers are longer than the server accepts."""

    status, detail = 431, "Request headers too large"


class RetryLater(RequestError):
    """Not possible now; fal's clients repeat some of these by themselves."""

    def __init__(self, detail: str | None = None, *, retry_after_s: float = 1.0) -> None:
        super().__init__(detail)
        self.retry_after_s = retry_after_s

    def headers(self) -> dict[str, str]:
        """The time after which it makes sense to try again."""
        return {"Retry-After": str(max(1, math.ceil(self.retry_after_s)))}


class InsufficientStorage(RetryLater):
    """The disk is nearly full: a job whose video could not be stored is not accepted."""

    status, error_type, detail = 503, "internal_error", "The server's disk is full; try again later"

    def __init__(self) -> None:
        super().__init__(retry_after_s=60.0)  # space comes from retention or from the operator


class TooManyRequests(RetryLater):
    """A limit of the owner or of the queue is reached."""

    status, error_type, detail = 429, "too_many_requests", "Too many requests"


class QueueTooLong(TooManyRequests):
    """More requests wait than the client accepts."""

    detail = "The queue is longer than fal_max_queue_length"


class Overloaded(RetryLater):
    """The server has no memory or no connection left for this request."""

    status, error_type, detail = 503, "runner_scheduling_failure", "The server is busy, try again"


class TryAgainLater(RetryLater):
    """The database or the object store is away; requests that were accepted are safe."""

    status, error_type, detail = 503, "internal_error", "The server cannot reach its database or storage, try again"


class ModelError(ServerError):
    """An input that the model cannot use, in fal's list form."""

    status: ClassVar[int] = 422
    error_type: ClassVar[str]
    message: ClassVar[str]
    loc: ClassVar[tuple[str, ...]] = ("body", "image_url")

    def __init__(self, message: str | None = None, *, ctx: dict[str, Any] | None = None) -> None:
        super().__init__(message or self.message)
        self.ctx = ctx

    def response(self) -> ErrorResponse:
        """The status, body and headers of this error."""
        return model_failure(self.status, self.error_type, str(self), self.loc, self.ctx)


class InvalidInput(ModelError):
    """The body does not match the schema; `detail` is the list FastAPI would send."""

    error_type, message = "validation_error", "Invalid input"

    def __init__(self, detail: list[dict[str, Any]]) -> None:
        super().__init__()
        self.detail = detail

    def response(self) -> ErrorResponse:
        """fal bills nothing for a validation error and says so."""
        return ErrorResponse(self.status, {"detail": self.detail}, self.error_type, {"x-fal-billable-units": "0"})


class ContentPolicyViolation(ModelError):
    """The safety checker flagged a prompt, the image, or the video that came of them."""

    error_type = "content_policy_violation"
    message = "The content could not be processed because it contained material flagged by a content checker."

    def __init__(self, field: Literal["prompt", "negative_prompt", "image_url"]) -> None:
        super().__init__()
        self.field = field

    def response(self) -> ErrorResponse:
        """fal names the field of the input."""
        return model_failure(self.status, self.error_type, str(self), ("body", self.field))


class ImageLoadError(ModelError):
    """Bytes that are no readable image."""

    error_type = "image_load_error"
    message = "Failed to load the image. Please ensure the image file is not corrupted and is in a supported format."


class UnsupportedImageFormat(ModelError):
    """An image, but not of a format we accept."""

    error_type = "unsupported_image_format"
    formats: ClassVar = (".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tiff", ".avif")
    message = f"Unsupported image format. Supported formats are {', '.join(formats)}."

    def __init__(self) -> None:
        super().__init__(ctx={"supported_formats": list(self.formats)})


class UnsupportedUpload(UnsupportedImageFormat):
    """The same of an upload, whose whole body is the image."""

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
