"""Download of finished videos: public to whoever knows the URL, with Range for `<video>` and resumed downloads."""

from fastapi import APIRouter, Request
from fastapi.responses import FileResponse, Response

from server.errors import NotFound
from server.services import services

router = APIRouter(tags=["files"])


@router.get("/files/{shard}/{token}/{name}")
async def download(request: Request, shard: str, token: str, name: str) -> Response:
    """The MP4; 206 for a satisfiable Range, 416 for another one."""
    path = services(request).storage.find(f"files/{shard}/{token}/{name}")
    if path is None:
        raise NotFound("File not found")
    headers = {
        "Cache-Control": "private, max-age=31536000, immutable",
        "X-Content-Type-Options": "nosniff",
        "Content-Security-Policy": "sandbox",
        "Access-Control-Allow-Origin": "*",
    }
    return FileResponse(path, media_type="video/mp4", filename=name, content_disposition_type="inline", headers=headers)
