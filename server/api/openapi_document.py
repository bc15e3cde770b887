"""The OpenAPI document of this server: what FastAPI knows, completed by what is true of all routes."""

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from server.api.route_docs import Problem, header
from server.api.routes.fal_queue import STATUS_SCHEMA
from server.fal.hosts import PROXY_PATH, TARGET_URL
from server.fal.schemas import HunyuanCustomInput

# What any operation may answer: limits of HTTP, foreign web pages, and faults of the server.
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
_PUBLIC = ("/files/", "/cdn/", "/health/", "/.well-known/", "/api/openapi/", "/playground/session")  # no key needed


def document(app: FastAPI) -> dict[str, Any]:
    """The whole document."""
    routes = [*app.routes, STATUS_SCHEMA]
    schema = get_openapi(title=app.title, version=app.version, description=app.description, routes=routes)
    components = schema.setdefault("components", {})
    components["securitySchemes"] = _SECURITY_SCHEMES
    body = HunyuanCustomInput.model_json_schema(ref_template="#/components/schemas/{model}")
    components["schemas"].setdefault("HunyuanCustomInput", body)
    components["schemas"].setdefault("Problem", Problem.model_json_schema())
    schema["paths"][PROXY_PATH] = _proxy_operations()
    for path, operations in schema["paths"].items():
        for method, operation in operations.items():
            _complete(path, method, operation)
    return schema


def _complete(path: str, method: str, operation: dict[str, Any]) -> None:
    """Add who may call, and what else than success there may be."""
    if not path.startswith(_PUBLIC):
        operation["security"] = [{}, {"falKey": []}]
    answers, queries = operation["responses"], _queries(operation)
    if method == "get" and not queries and answers.get("422", {}).get("description") == "Validation Error":
        del answers["422"]  # FastAPI's, for path parameters: any text is one
    others = dict(_EVERYWHERE)
    others |= _WITH_KEY if operation.get("security") or "token" in queries else {}
    proxied = path == PROXY_PATH  # it may answer what its targets do
    others |= _WITH_NAME if "{" in path or "endpoint_id" in queries or proxied else {}
    others |= _WITH_INPUT if "requestBody" in operation or "422" in answers else {}
    others |= _AT_A_COST if method == "post" or "requestBody" in operation or proxied else {}
    problem = {"application/json": {"schema": {"$ref": "#/components/schemas/Problem"}}}
    for status, description in others.items():
        if str(status) not in answers or answers[str(status)]["description"] == "Validation Error":
            answers[str(status)] = {"description": description, "content": problem}


def _queries(operation: dict[str, Any]) -> set[str]:
    return {parameter["name"] for parameter in operation.get("parameters", []) if parameter["in"] == "query"}


def _proxy_operations() -> dict[str, Any]:
    """This path has no route of its own: `middleware/host_rewrite.py` rewrites it to the others."""
    target = header(TARGET_URL, "The address on one of fal's hosts that is meant, or on this server.")
    return {
        method: {
            "tags": ["proxy"],
            "summary": "The path for `proxyUrl` of fal's JavaScript client",
            "operationId": f"proxy_{method}",
            "parameters": [{**target, "required": True}],
            "responses": {"200": {"description": "What the target answers."}},
        }
        for method in ("get", "post", "put")
    }
