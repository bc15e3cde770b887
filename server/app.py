"""The API process: routes, error translation, nothing of the model. It never imports torch."""

import logging
from http import HTTPStatus

from fastapi import FastAPI, HTTPException, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException as StarletteHTTPException

from server import routes_files, routes_health, routes_queue, routes_run
from server.doors import Doors
from server.errors import InternalError, ModelError, RequestError
from server.services import Services
from server.settings import Settings

logger = logging.getLogger(__name__)


def create_app(settings: Settings) -> FastAPI:
    """Build the API on an existing database."""
    app = FastAPI(title="hunyuan-custom-server", version="0.1.0", redirect_slashes=False)
    app.state.services = Services.open(settings)
    for routes in (routes_queue, routes_run, routes_files, routes_health):
        app.include_router(routes.router)
    app.add_middleware(Doors)
    app.add_exception_handler(RequestError, _typed_error)
    app.add_exception_handler(ModelError, _typed_error)
    app.add_exception_handler(RequestValidationError, _parameter_error)
    app.add_exception_handler(StarletteHTTPException, _http_error)
    app.add_exception_handler(Exception, _unexpected_error)
    return app


async def _typed_error(_request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestError | ModelError)  # noqa: S101 - registered for these two only
    response = error.response()
    return JSONResponse(response.body, response.status, response.headers)


async def _parameter_error(_request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)  # noqa: S101
    return JSONResponse({"detail": [{**item, "input": str(item["input"])} for item in error.errors()]}, 422)


async def _http_error(request: Request, error: Exception) -> JSONResponse:
    """404 and 405 in fal's words."""
    assert isinstance(error, HTTPException | StarletteHTTPException)  # noqa: S101
    detail = error.detail
    if error.status_code == HTTPStatus.NOT_FOUND:
        detail = _not_found_detail(request.url.path)
    return JSONResponse({"detail": detail}, error.status_code, error.headers)


def _not_found_detail(path: str) -> str:
    for prefix in ("/run/", "/queue/"):
        application = path.removeprefix(prefix)
        if application != path and not f"{application}/".startswith("fal-ai/hunyuan-custom/"):
            return f'Application "{application.removeprefix("fal-ai/").split("/")[0]}" not found'
        path = path.removeprefix(f"{prefix}fal-ai/hunyuan-custom")
    return f"Path {path} not found"


async def _unexpected_error(request: Request, error: Exception) -> JSONResponse:
    logger.error("%s %s failed", request.method, request.url.path, exc_info=error)
    response = InternalError().response()
    return JSONResponse({"detail": response.body["detail"]}, response.status, response.headers)
