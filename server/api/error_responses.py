"""Every error as an HTTP response: the one translation, and the handlers that FastAPI calls."""

from collections.abc import Callable, Coroutine, Mapping
from http import HTTPStatus
from typing import Any, Final

from fastapi import Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from starlette.exceptions import HTTPException

from server.errors import ErrorResponse, ModelError, RequestError
from server.fal.input_echo import echo
from server.fal.schemas import ENDPOINT


def to_response(
    error: RequestError | ModelError | ErrorResponse, headers: Mapping[str, str] | None = None
) -> JSONResponse:
    """The response of an error, with further headers."""
    answer = error if isinstance(error, ErrorResponse) else error.response()
    return JSONResponse(answer.body, answer.status, {**answer.headers, **(headers or {})})


async def on_server_error(_request: Request, error: RequestError | ModelError) -> JSONResponse:
    """An error of our own tree."""
    return to_response(error)


async def on_invalid_parameter(_request: Request, error: RequestValidationError) -> JSONResponse:
    """A query parameter that FastAPI has checked."""
    return JSONResponse({"detail": [{**item, "input": echo(item["input"])} for item in error.errors()]}, 422)


async def on_http_exception(request: Request, error: HTTPException) -> JSONResponse:
    """404 and 405 of the router, in fal's words."""
    detail, headers = error.detail, dict(error.headers or {})
    if error.status_code == HTTPStatus.NOT_FOUND:
        detail = _not_found(request.scope["path"])
        headers["x-fal-billable-units"] = "0"
    if "Allow" in headers:
        methods = set(headers["Allow"].split(", "))
        headers["Allow"] = ", ".join(sorted(methods | ({"HEAD"} if "GET" in methods else set())))
    return JSONResponse({"detail": detail}, error.status_code, headers)


def _not_found(path: str) -> str:
    for prefix in ("/run/", "/queue/"):
        application = path.removeprefix(prefix)
        if application != path and not f"{application}/".startswith(f"{ENDPOINT}/"):
            return f'Application "{application.removeprefix("fal-ai/").split("/")[0]}" not found'
        path = path.removeprefix(f"{prefix}{ENDPOINT}")
    return f"Path {path} not found"


HANDLERS: Final[dict[int | type[Exception], Callable[[Request, Any], Coroutine[Any, Any, Response]]]] = {
    RequestError: on_server_error,
    ModelError: on_server_error,
    RequestValidationError: on_invalid_parameter,
    HTTPException: on_http_exception,
}
