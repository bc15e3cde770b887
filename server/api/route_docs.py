"""What the schema of this server says about its routes beyond what FastAPI finds out by itself: bodies that are read
by hand, and every status an operation may answer with."""

from dataclasses import dataclass, field
from typing import Any, Literal

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel, ConfigDict, Field

from server.fal.hosts import PROXY_PATH, TARGET_URL
from server.fal.queue_models import CancelAnswer, QueueStatus
from server.fal.schemas import HunyuanCustomInput, HunyuanCustomOutput

Responses = dict[int | str, dict[str, Any]]


class Problem(BaseModel):
    """An error: a sentence, or fal's list of places in the input; cancel answers a status instead."""

    model_config = ConfigDict(extra="allow")

    detail: str | list[dict[str, Any]] | None = None
    error_type: str | None = None
    status: str | None = None


class UploadUrls(BaseModel):
    """Where to PUT the bytes, and the URL to submit."""

    upload_url: str
    file_url: str


class StoredUrl(BaseModel):
    """The URL of an upload that was put."""

    url: str


class AccessUrl(BaseModel):
    """The URL of an upload that was posted."""

    access_url: str


class CdnToken(BaseModel):
    """What `POST /cdn/files/upload` takes as its bearer token."""

    token: str
    token_type: Literal["Bearer"]
    base_url: str
    expires_at: str = Field(json_schema_extra={"format": "date-time"})


class Described(BaseModel):
    """What is going to be uploaded."""

    content_type: str = Field(default="", examples=["image/png"])
    file_name: str = Field(default="", examples=["woman.png"])


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
    {200: {"description": "One event per change.", "content": {"text/event-stream": {"schema": {}}}}},
    {"parameters": [_LOGS, _header("Last-Event-ID", "Only log lines after this event.")]},
)
RESULT = RouteDoc(
    {200: _json("The output.", HunyuanCustomOutput), 422: _json("Its input was not valid.", Problem), **_FAILED}
)
CANCEL = RouteDoc({202: _json("Taken down.", CancelAnswer)})
_ELSEWHERE = {"description": "From a bucket: where the file is, for a few minutes."}
DOWNLOAD = RouteDoc(
    {
        200: {"description": "The file.", "content": {"video/mp4": {}}},
        206: {"description": "The asked range.", "content": {"video/mp4": {}}},
        302: _ELSEWHERE,
        410: _json("The file's time is over.", Problem),
        416: _json("The range lies outside the file.", Problem),
    }
)

_IMAGE = {"schema": {"type": "string", "format": "binary"}}
_IMAGES = dict.fromkeys(("image/png", "image/jpeg", "image/webp"), _IMAGE)
_IMAGE_BODY = {"requestBody": {"required": True, "content": _IMAGES}}
_LIFECYCLE = _header("X-Fal-Object-Lifecycle", '`{"expiration_duration_seconds": N}` shortens the life of the upload.')

INITIATE = RouteDoc(
    {200: _json("Where to put it.", UploadUrls)},
    {
        "requestBody": {"content": {"application/json": {"schema": Described.model_json_schema()}}},
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
        "parameters": [_LIFECYCLE, _header("X-Fal-File-Name", "Name of the file.")],
    },
)
MULTIPART = RouteDoc({413: _json("Always: no image is that large.", Problem)})
CDN_MULTIPART = RouteDoc(MULTIPART.responses, {"security": [{"cdnToken": []}]})
IMAGE_DOWNLOAD = RouteDoc(
    {
        410: _json("The upload's time is over.", Problem),
        200: {"description": "The image.", "content": _IMAGES},
        206: {"description": "The asked range.", "content": _IMAGES},
        302: _ELSEWHERE,
        416: _json("The range lies outside the file.", Problem),
    }
)
READY = RouteDoc({200: _json("A video can be made.", Readiness), 503: _json("Not now.", Readiness)})
OPENAPI = RouteDoc(
    {200: {"description": "The schema.", "content": {"application/json": {"schema": {"type": "object"}}}}}
)
KEY_SET = RouteDoc({200: _json("The keys.", KeySet)})

# What any operation may answer, whatever is asked: the small print of HTTP, foreign pages, and a server in trouble.
_EVERYWHERE = {
    400: "A parameter or header that cannot be read, or not possible in this state.",
    403: "This page or host may not call.",
    405: "Not a method of this path.",
    413: "The body is too large.",
    431: "The headers are too large.",
    500: "An unexpected error; its id is in `x-fal-request-id`.",
    503: "Not possible at the moment.",
}
_WITH_KEY = {401: "No valid key."}
_WITH_NAME = {404: "Nothing there, or not yours."}
_WITH_INPUT = {422: "The input is not valid."}
_AT_A_COST = {429: "A limit is reached; try again later."}

_SECURITY_SCHEMES = {
    "falKey": {
        "type": "apiKey",
        "in": "header",
        "name": "Authorization",
        "description": "`Key <id>:<secret>`; a server on loopback without keys asks for none.",
    },
    "cdnToken": {"type": "http", "scheme": "bearer", "description": "From `POST /rest/storage/auth/token`."},
}
_PUBLIC = ("/files/", "/cdn/", "/health/", "/.well-known/", "/api/openapi/")  # whoever knows the URL


def document(app: FastAPI) -> dict[str, Any]:
    """The OpenAPI schema of this server, complete; replaces `app.openapi`."""
    if app.openapi_schema is None:
        schema = get_openapi(title=app.title, version=app.version, description=app.description, routes=app.routes)
        components = schema.setdefault("components", {})
        components["securitySchemes"] = _SECURITY_SCHEMES
        body = HunyuanCustomInput.model_json_schema(ref_template="#/components/schemas/{model}")
        components["schemas"].setdefault("HunyuanCustomInput", body)
        components["schemas"].setdefault("Problem", Problem.model_json_schema())
        schema["paths"][PROXY_PATH] = _proxy_door()
        for path, operations in schema["paths"].items():
            for method, operation in operations.items():
                _complete(path, method, operation)
        app.openapi_schema = schema
    return app.openapi_schema


def _complete(path: str, method: str, operation: dict[str, Any]) -> None:
    """Add who may call, and what else than success there may be."""
    if not path.startswith(_PUBLIC):
        operation["security"] = [{}, {"falKey": []}]
    answers, queries = operation["responses"], _queries(operation)
    if method == "get" and not queries and answers.get("422", {}).get("description") == "Validation Error":
        del answers["422"]  # FastAPI's, for path parameters: any text is one
    others = dict(_EVERYWHERE)
    others |= _WITH_KEY if operation.get("security") or "token" in queries else {}
    proxied = path == PROXY_PATH  # whatever its targets may answer
    others |= _WITH_NAME if "{" in path or "endpoint_id" in queries or proxied else {}
    others |= _WITH_INPUT if "requestBody" in operation or "422" in answers else {}
    others |= _AT_A_COST if method == "post" or "requestBody" in operation or proxied else {}
    problem = {"application/json": {"schema": {"$ref": "#/components/schemas/Problem"}}}
    for status, description in others.items():
        if str(status) not in answers or answers[str(status)]["description"] == "Validation Error":
            answers[str(status)] = {"description": description, "content": problem}


def _queries(operation: dict[str, Any]) -> set[str]:
    return {parameter["name"] for parameter in operation.get("parameters", []) if parameter["in"] == "query"}


def _proxy_door() -> dict[str, Any]:
    """What has no route of its own: `api/middleware/host_rewrite.py` leads it to the others."""
    target = _header(TARGET_URL, "The address on one of fal's hosts that is meant, or on this server.")
    return {
        method: {
            "tags": ["proxy"],
            "summary": "The door of `proxyUrl` in fal's JavaScript client",
            "operationId": f"proxy_{method}",
            "parameters": [{**target, "required": True}],
            "responses": {"200": {"description": "What the target answers."}},
        }
        for method in ("get", "post", "put")
    }
