"""The model's OpenAPI document at fal's path."""

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse

from server.api.public_url import base_url
from server.api.route_docs import OPENAPI
from server.errors import UnknownApplication
from server.fal.queue_openapi import queue_document
from server.fal.schemas import ENDPOINT

router = APIRouter(tags=["openapi"])


@router.get("/api/openapi/queue/openapi.json", responses=OPENAPI.responses)
async def queue_openapi(request: Request, endpoint_id: str = ENDPOINT) -> JSONResponse:
    """The schema of `fal-ai/hunyuan-custom`'s queue, with this server as its `servers`."""
    if endpoint_id != ENDPOINT:
        raise UnknownApplication(f'Application "{endpoint_id.removeprefix("fal-ai/")}" not found')
    return JSONResponse(queue_document(f"{base_url(request)}/queue"))
