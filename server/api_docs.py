"""What the schema of this server says about its routes beyond what FastAPI finds out by itself: bodies that are read
by hand, and every status an operation may answer with."""

from dataclasses import dataclass, field
from typing import Any, Literal

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel, ConfigDict, Field

from server.schemas import HunyuanCustomInput, HunyuanCustomOutput

Responses = dict[int | str, dict[str, Any]]


class Problem(BaseModel):
    """An error: a sentence, or fal's list of places in the input; cancel answers a status instead."""

    model_config = ConfigDict(extra="allow")

    detail: str | list[dict[str, Any]] | None = None
    error_type: str | None = None
    status: str | None = None


class LogEntry(BaseModel):
    """One line of a job's log."""

    message: str
    level: Literal["STDERR", "STDOUT", "ERROR", "INFO", "WARN", "DEBUG"]
    source: str
    timestamp: str


class QueueStatus(BaseModel):
    """Where a request is."""

    status: Literal["IN_QUEUE", "IN_PROGRESS", "COMPLETED"]
    request_id: str
    response_url: str
    status_url: str
    cancel_url: str
    queue_position: int | None = Field(default=None, description="How many requests come before this one.")
    logs: list[LogEntry] | None = None
    metrics: dict[str, float] | None = None
    error: str | None = None
    error_type: str | None = None
    gateway_request_id: str | None = None


class CancelAnswer(BaseModel):
    """The cancel was taken down."""

    status: Literal["CANCELLATION_REQUESTED"]


@dataclass(frozen=True)
class RouteDoc:
    """Arguments of a route's decorator."""

    responses: Responses = field(default_factory=dict)
    extra: dict[str, Any] = field(default_factory=dict)


def _header(name: str, description: str, **schema: Any) -> dict[str, Any]:
    return {"name": name, "in": "header", "description": description, "schema": {"type": "string", **schema}}


def _json(description: str, model: type[BaseModel]) -> dict[str, Any]:
    return {"description": description, "model": model}


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
    _header("X-Fal-Queue-Priority", "`low` waits behind all `normal` requests.", enum=["normal", "low"]),
    _header("X-Fal-Request-Timeout", "Seconds (> 0.1) within which the work must start; else 504."),
    _header("X-Fal-No-Retry", "`1`: not repeated when a worker is lost."),
    _header("X-Fal-Store-IO", "`0`: the input is forgotten when the request is over."),
    _header("X-Fal-Object-Lifecycle-Preference", '`{"expiration_duration_seconds": N}` shortens the video\'s life.'),
    _header("X-Fal-Runner-Hint", "Accepted; there is one model."),
    _header("Idempotency-Key", "The same key leads to the same request.", maxLength=255),
]
_FAILED: Responses = {
    499: _json("Cancelled by its sender.", Problem),
    502: _json("The failure of the request itself.", Problem),
    504: _json("Not started in time, or no progress.", Problem),
}

SUBMIT = RouteDoc({200: _json("Accepted.", QueueStatus)}, {"requestBody": _BODY, "parameters": _SUBMIT_HEADERS})
RUN = RouteDoc(
    {200: _json("The output.", HunyuanCustomOutput), **_FAILED},
    {"requestBody": _BODY, "parameters": _SUBMIT_HEADERS},
)
STATUS = RouteDoc(
    {200: _json("The request is over.", QueueStatus), 202: _json("It waits or runs.", QueueStatus)},
    {"parameters": [_LOGS]},
)
STREAM = RouteDoc(
    {200: {"description": "One event per change.", "content": {"text/event-stream": {"schema": {"type": "string"}}}}},
    {"parameters": [_LOGS, _header("Last-Event-ID", "Only log lines after this event.")]},
)
RESULT = RouteDoc({200: _json("The output.", HunyuanCustomOutput), **_FAILED})
CANCEL = RouteDoc({202: _json("Taken down.", CancelAnswer)})
DOWNLOAD = RouteDoc(
    {
        200: {"description": "The file.", "content": {"video/mp4": {}}},
        206: {"description": "The asked range.", "content": {"video/mp4": {}}},
        410: _json("The file's time is over.", Problem),
        416: {"description": "The range lies outside the file.", "content": {"text/plain": {}}},
    }
)

# Every operation: bad input, keys, limits, and what goes wrong in a server.
_EVERYWHERE = {
    400: "A parameter or header that cannot be read, or not possible in this state.",
    401: "No valid key.",
    403: "This page or host may not call.",
    404: "Nothing there, or not yours.",
    405: "Not a method of this path.",
    413: "The body is too large.",
    422: "The input is not valid.",
    429: "A limit is reached; try again later.",
    431: "The headers are too large.",
    500: "An unexpected error; its id is in `x-fal-request-id`.",
    503: "Not possible at the moment.",
}


def document(app: FastAPI) -> dict[str, Any]:
    """The OpenAPI schema of this server, complete; replaces `app.openapi`."""
    if app.openapi_schema is None:
        schema = get_openapi(title=app.title, version=app.version, description=app.description, routes=app.routes)
        schemas = schema.setdefault("components", {}).setdefault("schemas", {})
        body = HunyuanCustomInput.model_json_schema(ref_template="#/components/schemas/{model}")
        schemas.setdefault("HunyuanCustomInput", body)
        schemas.setdefault("Problem", Problem.model_json_schema())
        problem = {"application/json": {"schema": {"$ref": "#/components/schemas/Problem"}}}
        for operations in schema["paths"].values():
            for operation in operations.values():
                answers = operation["responses"]
                for status, description in _EVERYWHERE.items():
                    if status == 422 or str(status) not in answers:
                        answers[str(status)] = {"description": description, "content": problem}
        app.openapi_schema = schema
    return app.openapi_schema
