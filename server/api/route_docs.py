"""What the schema of this server says about single routes beyond what FastAPI finds out by itself: bodies that are read
by hand, and statuses that a route has of its own."""

from dataclasses import dataclass, field
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from server.api.admin_models import AdminOverview, Draining, Redelivery, RequestPage
from server.api.playground_models import ProgressAnswer, SessionInfo
from server.fal.queue_models import CancelAnswer, QueueStatus
from server.fal.schemas import HunyuanCustomOutput
from server.fal.upload_models import AccessUrl, CdnToken, StoredUrl, UploadDescription, UploadUrls
from server.jobs.history import HistoryEntry, HistoryPage
from server.jobs.request_details import RequestDetails

Responses = dict[int | str, dict[str, Any]]


class Problem(BaseModel):
    """An error: a sentence, or fal's list of places in the input; cancel answers a status instead."""

    model_config = ConfigDict(extra="allow")

    detail: str | list[dict[str, Any]] | None = None
    error_type: str | None = None
    status: str | None = None


class KeySet(BaseModel):
    """A JSON Web Key Set."""

    keys: list[dict[str, str]]


class Readiness(BaseModel):
    """Whether a video could be made now, and what each worker says of itself."""

    status: Literal["ready", "not ready"]
    workers: list[dict[str, Any]]


@dataclass(frozen=True)
class RouteDoc:
    """Arguments of a route's decorator."""

    responses: Responses = field(default_factory=dict)
    extra: dict[str, Any] = field(default_factory=dict)


def header(name: str, description: str, **schema: Any) -> dict[str, Any]:
    return {"name": name, "in": "header", "description": description, "schema": {"type": "string", **schema}}


def _json(description: str, model: type) -> dict[str, Any]:
    return {"description": description, "model": model}


_REQUEST_ID = {
    "name": "request_id",
    "in": "path",
    "required": True,
    "schema": {"type": "string", "title": "Request Id"},
}
_LOGS = {
    "name": "logs",
    "in": "query",
    "description": "Whether to include logs (`1`) in the response or not (`0`).",
    "schema": {"type": "string", "default": "0"},
}
_BODY = {
    "required": True,
    "content": {"application/json": {"schema": {"$ref": "#/components/schemas/HunyuanCustomInput"}}},
}
_SUBMIT_HEADERS = [
    header("X-Fal-Queue-Priority", "`low` waits behind all `normal` requests.", enum=["normal", "low"]),
    header("X-Fal-Request-Timeout", "Seconds (> 0.1) within which the work must start; else 504."),
    header("X-Fal-No-Retry", "`1`: not repeated when a worker is lost."),
    header("X-Fal-Store-IO", "`0`: the input is forgotten when the request is over."),
    header("X-Fal-Object-Lifecycle-Preference", '`{"expiration_duration_seconds": N}` shortens the video\'s life.'),
    header("X-Fal-Runner-Hint", "Accepted; there is one model."),
    header("Idempotency-Key", "The same key leads to the same request.", maxLength=255),
]
_FAILED: Responses = {
    499: _json("Cancelled by its sender.", Problem),
    504: _json("Not started in time, or no progress.", Problem),
}

SUBMIT = RouteDoc({200: _json("Accepted.", QueueStatus)}, {"requestBody": _BODY, "parameters": _SUBMIT_HEADERS})
RUN = RouteDoc(
    {200: _json("The output.", HunyuanCustomOutput), **_FAILED},
    {"requestBody": _BODY, "parameters": _SUBMIT_HEADERS},
)
STATUS = RouteDoc(
    {200: _json("The request is over.", QueueStatus), 202: _json("It waits or runs.", QueueStatus)},
    {"parameters": [_REQUEST_ID, _LOGS]},
)
STREAM = RouteDoc(
    {200: {"description": "One event per change.", "content": {"text/event-stream": {"schema": {}}}}},
    {"parameters": [_LOGS, header("Last-Event-ID", "Only log lines after this event.")]},
)
RESULT = RouteDoc(
    {200: _json("The output.", HunyuanCustomOutput), 422: _json("Its input was not valid.", Problem), **_FAILED}
)
CANCEL = RouteDoc({202: _json("Accepted.", CancelAnswer)})


def _stored(what: str, content: dict[str, Any], *, elsewhere: bool = True) -> Responses:
    return {
        200: {"description": f"The {what}.", "content": content},
        206: {"description": "The asked range.", "content": content},
        410: _json(f"The {what}'s time is over.", Problem),
        416: _json("The range lies outside the file.", Problem),
        **({302: {"description": "From a bucket: where the file is, for a few minutes."}} if elsewhere else {}),
    }


DOWNLOAD = RouteDoc(_stored("file", {"video/mp4": {}, "image/webp": {}}))

_IMAGE = {"schema": {"type": "string", "format": "binary"}}
_IMAGES = dict.fromkeys(
    ("image/png", "image/jpeg", "image/webp", "image/gif", "image/bmp", "image/tiff", "image/avif"), _IMAGE
)
_IMAGE_BODY = {"requestBody": {"required": True, "content": _IMAGES}}
_LIFECYCLE = header("X-Fal-Object-Lifecycle", '`{"expiration_duration_seconds": N}` shortens the life of the upload.')

INITIATE = RouteDoc(
    {200: _json("Where to put it.", UploadUrls)},
    {
        "requestBody": {"content": {"application/json": {"schema": UploadDescription.model_json_schema()}}},
        "parameters": [_LIFECYCLE],
    },
)
PUT_UPLOAD = RouteDoc({200: _json("Stored.", StoredUrl)}, _IMAGE_BODY)
CDN_TOKEN = RouteDoc({200: _json("A token.", CdnToken)})
UPLOAD = RouteDoc(
    {200: _json("Stored.", AccessUrl)},
    {
        **_IMAGE_BODY,
        "security": [{"cdnToken": []}],
        "parameters": [_LIFECYCLE, header("X-Fal-File-Name", "Name of the file.")],
    },
)
MULTIPART = RouteDoc({413: _json("Always: no image is that large.", Problem)})
CDN_MULTIPART = RouteDoc(MULTIPART.responses, {"security": [{"cdnToken": []}]})
IMAGE_DOWNLOAD = RouteDoc(_stored("image", _IMAGES))
SESSION = RouteDoc({200: _json("What the playground needs to begin.", SessionInfo)})
HISTORY = RouteDoc({200: _json("The newest first.", HistoryPage)})
HISTORY_ENTRY = RouteDoc({200: _json("The request.", HistoryEntry)})
PROGRESS = RouteDoc({200: _json("How far it is.", ProgressAnswer)})
PREVIEW = RouteDoc({200: {"description": "The picture.", "content": {"image/webp": {}}}})
STORED_IMAGE = RouteDoc(_stored("image", _IMAGES, elsewhere=False))
DELETE = RouteDoc({204: {"description": "Nothing is left of it but its usage record."}})
READY = RouteDoc({200: _json("A video can be made.", Readiness), 503: _json("Not now.", Readiness)})
_OPERATOR: Responses = {403: _json("Not a key of the operator.", Problem)}
METRICS = RouteDoc(
    {200: {"description": "In the format that `Accept` prefers.", "content": {"text/plain": {}}}, **_OPERATOR}
)
OVERVIEW = RouteDoc({200: _json("The deployment now.", AdminOverview), **_OPERATOR})
DRAIN = RouteDoc(
    {200: _json("Asked for.", Draining), **_OPERATOR},
    {"requestBody": {"required": True, "content": {"application/json": {"schema": Draining.model_json_schema()}}}},
)
REQUESTS = RouteDoc({200: _json("The newest first.", RequestPage), **_OPERATOR})
REQUEST = RouteDoc({200: _json("The request.", RequestDetails), **_OPERATOR})
REDELIVER = RouteDoc({202: _json("Accepted.", Redelivery), **_OPERATOR})
OPENAPI = RouteDoc(
    {200: {"description": "The schema.", "content": {"application/json": {"schema": {"type": "object"}}}}}
)
KEY_SET = RouteDoc({200: _json("The keys.", KeySet)})
