"""The public half of the key that signs webhooks, where receivers look for it."""

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse

from server.api.route_docs import KEY_SET
from server.api.services import services

router = APIRouter(tags=["webhooks"])


@router.get("/.well-known/jwks.json", responses=KEY_SET.responses)
@router.get("/rest/.well-known/jwks.json", include_in_schema=False)
async def key_set(request: Request) -> JSONResponse:
    """A JWKS with one Ed25519 key; receivers may keep it for a day, as fal says."""
    keys = services(request).webhook_keys
    return JSONResponse(keys, headers={"Cache-Control": "public, max-age=86400", "Access-Control-Allow-Origin": "*"})
