"""The model's OpenAPI document in fal's shape: code generators and fal's own tools read it.

OpenAPI 3.0.4 as fal publishes it, so pydantic's JSON schema (2020-12) is translated where the two differ.
"""

from typing import Any

from pydantic import BaseModel

from server.fal.queue_models import QueueStatus
from server.fal.schemas import ENDPOINT, File, HunyuanCustomInput, HunyuanCustomOutput

_MODEL_PAGE = f"https://fal.ai/models/{ENDPOINT}"
_REQUEST_ID = {
    "name": "request_id",
    "in": "path",
    "required": True,
    "schema": {"type": "string", "description": "Request ID"},
}
_LOGS = {
    "name": "logs",
    "in": "query",
    "required": False,
    "schema": {"type": "number", "description": "Whether to include logs (`1`) in the response or not (`0`)."},
}
_OBJECT = {"type": "object", "additionalProperties": True}
_PUBLISHED = ("status", "request_id", "response_url", "status_url", "cancel_url", "logs", "metrics", "queue_position")
_FILE_DATA = {"type": "string", "format": "binary", "title": "File Data", "description": "File data"}
_CANCELLED = {
    "type": "object",
    "properties": {"success": {"type": "boolean", "description": "Whether the request was cancelled successfully."}},
}


def queue_document(server_url: str) -> dict[str, Any]:
    """The whole document."""
    file = _component(File)
    return {
        "openapi": "3.0.4",
        "info": {
            "title": f"Queue OpenAPI for {ENDPOINT}",
            "version": "1.0.0",
            "description": f"The OpenAPI schema for the {ENDPOINT} queue.",
            "x-fal-metadata": {
                "endpointId": ENDPOINT,
                "category": "image-to-video",
                "playgroundUrl": _MODEL_PAGE,
                "documentationUrl": f"{_MODEL_PAGE}/api",
            },
        },
        "components": {
            "securitySchemes": {
                "apiKeyAuth": {"type": "apiKey", "in": "header", "name": "Authorization", "description": "Fal Key"}
            },
            "schemas": {
                "QueueStatus": _queue_status(),
                "HunyuanCustomInput": _component(HunyuanCustomInput),
                "HunyuanCustomOutput": _component(HunyuanCustomOutput),
                "File": {**file, "properties": {**file["properties"], "file_data": _FILE_DATA}},
            },
        },
        "paths": _paths(),
        "servers": [{"url": server_url}],
        "security": [{"apiKeyAuth": []}],
    }


def _paths() -> dict[str, Any]:
    status, output = _ref("QueueStatus"), _ref("HunyuanCustomOutput")
    request = f"/{ENDPOINT}/requests/{{request_id}}"
    body = {"required": True, "content": {"application/json": {"schema": _ref("HunyuanCustomInput")}}}
    return {
        f"{request}/status": {
            "get": {"parameters": [_REQUEST_ID, _LOGS], "responses": _answer("The request status.", status)}
        },
        f"{request}/cancel": {
            "put": {"parameters": [_REQUEST_ID], "responses": _answer("The request was cancelled.", _CANCELLED)}
        },
        f"/{ENDPOINT}": {"post": {"requestBody": body, "responses": _answer("The request status.", status)}},
        request: {"get": {"parameters": [_REQUEST_ID], "responses": _answer("Result of the request.", output)}},
    }


def _queue_status() -> dict[str, Any]:
    """As fal publishes it: without the errors, and with any object for logs and metrics."""
    described = _component(QueueStatus)["properties"]
    fields = {name: {key: value for key, value in described[name].items() if key != "title"} for name in _PUBLISHED}
    for name in ("logs", "metrics"):
        fields[name] = {**_OBJECT, "description": fields[name]["description"]}
    return {"type": "object", "properties": fields, "required": ["status", "request_id"]}


def _ref(name: str) -> dict[str, str]:
    return {"$ref": f"#/components/schemas/{name}"}


def _answer(description: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"200": {"description": description, "content": {"application/json": {"schema": schema}}}}


def _component(model: type[BaseModel]) -> dict[str, Any]:
    schema = model.model_json_schema(ref_template="#/components/schemas/{model}")
    schema.pop("$defs", None)
    schema["properties"] = {name: _translated(value) for name, value in schema["properties"].items()}
    schema["x-fal-order-properties"] = list(schema["properties"])
    return schema


def _translated(value: dict[str, Any]) -> dict[str, Any]:
    """JSON Schema 2020-12 in OpenAPI 3.0: no null type, one example, boolean limits, nothing beside a $ref."""
    translated = dict(value)
    examples = translated.pop("examples", [])
    if examples:
        translated["example"] = examples[0]
    options = translated.pop("anyOf", [])
    for option in options:
        if option != {"type": "null"}:
            translated |= option
    if len(options) == 2 and translated.get("default", 0) is None:
        del translated["default"]
    if "exclusiveMaximum" in translated:
        translated |= {"maximum": translated["exclusiveMaximum"], "exclusiveMaximum": True}
    reference = translated.pop("$ref", None)
    return {"allOf": [{"$ref": reference}], **translated} if reference else translated
