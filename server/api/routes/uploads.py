"""fal's file storage, as far as images go: `fal_client.upload*` and `fal.storage.upload` work unchanged.

    POST /rest/storage/upload/initiate   {"content_type", "file_name"} -> where to PUT, and the URL to submit
    PUT  /cdn/upload/...?token=          the bytes; no key, the token in the query stands for it
    POST /rest/storage/auth/token        a bearer token for the CDN
    POST /cdn/files/upload               the bytes, with that token
    GET  /cdn/files/...                  the image, public to all who know the URL
Multipart uploads are for files that are larger than any image accepted here: 413.
"""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote

from fastapi import APIRouter, Query, Request
from fastapi.responses import FileResponse, JSONResponse, Response
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect

from server.api.auth import admit, readmit, shown_key
from server.api.media_response import MediaResponse, find_stored
from server.api.middleware.head_requests import asked_method
from server.api.public_url import base_url
from server.api.request_body import read_body
from server.api.route_docs import CDN_MULTIPART, CDN_TOKEN, IMAGE_DOWNLOAD, INITIATE, MULTIPART, PUT_UPLOAD, UPLOAD
from server.api.services import services
from server.errors import (
    BadRequest,
    BodyTooLarge,
    Gone,
    InsufficientStorage,
    NotFound,
    Unauthorized,
)
from server.fal.schemas import parse_json_object
from server.fal.submit_headers import lifetime_s
from server.fal.upload_models import AccessUrl, CdnToken, StoredUrl, UploadUrls
from server.storage.own_urls import UPLOADS_PATH
from server.untrusted.media_types import HEAD_BYTES, media_type

router = APIRouter(tags=["uploads"])

_PUT, _CDN = "put", "cdn"  # what a token is for
_PUT_TTL_S = 3600.0
_CDN_TTL_S = 86400.0
_DESCRIPTION_BYTES = 65536


@router.post("/rest/storage/upload/initiate", openapi_extra=INITIATE.extra, responses=INITIATE.responses)
async def initiate(request: Request) -> UploadUrls:
    """Reserve a URL. Which bytes may come is decided when they come."""
    owner = admit(request)
    described = parse_json_object(await read_body(request, limit=_DESCRIPTION_BYTES))
    content_type, file_name = _text(described, "content_type").lower(), _text(described, "file_name")
    parts, base = services(request), base_url(request)
    key = parts.uploads.new_key(file_name, content_type)
    path = key.removeprefix("uploads/")
    life = _lifetime(request)
    token = parts.tokens.issue(_PUT, f"{owner}/{shown_key(request)}/{life or ''}/{path}", ttl_s=_PUT_TTL_S)
    return UploadUrls(
        upload_url=f"{base}/cdn/upload/{path}?token={quote(token, safe='')}", file_url=f"{base}{UPLOADS_PATH}{path}"
    )


@router.put(
    "/cdn/upload/{shard}/{token_of_path}/{name}", openapi_extra=PUT_UPLOAD.extra, responses=PUT_UPLOAD.responses
)
async def put(
    request: Request, shard: str, token_of_path: str, name: str, token: Annotated[str, Query()] = ""
) -> StoredUrl:
    """Take the bytes; a client that lost the answer may send them again."""
    path = f"{shard}/{token_of_path}/{name}"
    owner, key_id, life, permitted = services(request).tokens.subject(_PUT, token).split("/", 3)
    if permitted != path:
        raise Unauthorized("Invalid upload token")
    readmit(request, owner, key_id)
    await _receive(request, owner, f"uploads/{path}", float(life) if life else None)
    return StoredUrl(url=f"{base_url(request)}{UPLOADS_PATH}{path}")


@router.post("/rest/storage/auth/token", responses=CDN_TOKEN.responses)
async def cdn_token(request: Request) -> CdnToken:
    """A token for `POST /cdn/files/upload`."""
    token = services(request).tokens.issue(_CDN, f"{admit(request)}/{shown_key(request)}", ttl_s=_CDN_TTL_S)
    expires = datetime.now(UTC) + timedelta(seconds=_CDN_TTL_S)
    return CdnToken(
        token=token,
        token_type="Bearer",  # noqa: S106 - no secret
        base_url=f"{base_url(request)}/cdn",
        expires_at=expires.isoformat(timespec="seconds"),  # with an offset: the client compares it with its own time
    )


@router.post("/cdn/files/upload", openapi_extra=UPLOAD.extra, responses=UPLOAD.responses)
async def upload(request: Request) -> AccessUrl:
    """Take the bytes of one file."""
    parts = services(request)
    owner = _cdn_owner(request)
    parts.rates.take(owner)
    content_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    key = parts.uploads.new_key(request.headers.get("x-fal-file-name", ""), content_type)
    await _receive(request, owner, key, _lifetime(request))
    return AccessUrl(access_url=f"{base_url(request)}{UPLOADS_PATH}{key.removeprefix('uploads/')}")


@router.post("/rest/storage/upload/initiate-multipart", status_code=413, responses=MULTIPART.responses)
async def initiate_multipart(request: Request) -> JSONResponse:
    """JS starts one for files over 90 MiB."""
    admit(request)
    raise _too_large(request)


@router.post(
    "/cdn/files/upload/multipart",
    status_code=413,
    openapi_extra=CDN_MULTIPART.extra,
    responses=CDN_MULTIPART.responses,
)
async def upload_multipart(request: Request) -> JSONResponse:
    """Python starts one for files over 100 MiB."""
    _cdn_owner(request)
    raise _too_large(request)


@router.get(
    f"{UPLOADS_PATH}{{shard}}/{{token}}/{{name}}", response_class=FileResponse, responses=IMAGE_DOWNLOAD.responses
)
async def download(request: Request, shard: str, token: str, name: str) -> Response:
    """The image as it was sent, as an image and as nothing else; 410 from the moment its time is over."""
    parts, key = services(request), f"uploads/{shard}/{token}/{name}"
    path = await find_stored(parts.storage, key, asked_method(request.scope))
    if path is None:
        raise NotFound("File not found")
    if await run_in_threadpool(parts.uploads.is_expired, key):
        raise Gone
    if isinstance(path, Response):
        return path
    try:
        kind = await run_in_threadpool(_media_type, path)
    except FileNotFoundError:  # deleted at this moment
        raise NotFound("File not found") from None
    return MediaResponse(path, media_type=kind, max_age_s=86400, policy="default-src 'none'; sandbox")


def _media_type(path: Path) -> str | None:
    with path.open("rb") as file:
        return media_type(file.read(HEAD_BYTES))


async def _receive(request: Request, owner: str, key: str, ttl_s: float | None) -> None:
    """Bytes go to disk as they come, in threads: an upload takes no memory and keeps no other call waiting."""
    parts = services(request)
    if await run_in_threadpool(parts.storage.scratch.free_bytes) < parts.settings.jobs.min_free_bytes:
        raise InsufficientStorage
    limit = parts.settings.image.max_bytes
    declared = request.headers.get("content-length", "")
    if declared.isdigit() and int(declared) > limit:
        raise _too_large(request)
    with parts.storage.scratch.file("upload.part") as part:
        with await run_in_threadpool(part.open, "wb") as file:
            received = 0
            try:
                async for chunk in request.stream():
                    received += len(chunk)
                    if received > limit:
                        raise _too_large(request)
                    await run_in_threadpool(file.write, chunk)
            except ClientDisconnect:
                raise BadRequest("The body ended early") from None
        await run_in_threadpool(parts.uploads.keep, owner, key, part, ttl_s=ttl_s)


def _cdn_owner(request: Request) -> str:
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer":
        raise Unauthorized("Invalid upload token")
    owner, _, key_id = services(request).tokens.subject(_CDN, token.strip()).partition("/")
    readmit(request, owner, key_id)
    return owner


def _too_large(request: Request) -> BodyTooLarge:
    return BodyTooLarge(f"Images may have {services(request).settings.image.max_bytes} bytes")


def _text(described: dict[str, Any], field: str) -> str:
    value = described.get(field, "")
    if not isinstance(value, str):
        raise BadRequest(f"{field} must be a string")
    return value


def _lifetime(request: Request) -> float | None:
    headers = request.headers
    return lifetime_s(headers.get("x-fal-object-lifecycle") or headers.get("x-fal-object-lifecycle-preference"))
