"""Download of finished videos: public to whoever knows the URL, with Range for `<video>` and resumed downloads."""

from fastapi import APIRouter, Request
from fastapi.responses import FileResponse, Response

from server.api_docs import DOWNLOAD
from server.errors import Gone, NotFound
from server.services import services

router = APIRouter(tags=["files"])


class _Media(FileResponse):
    """Starlette's 64 KiB a read cost a thread switch each."""

    chunk_size = 512 * 1024


@router.head("/files/{shard}/{token}/{name}", include_in_schema=False)
@router.get("/files/{shard}/{token}/{name}", response_class=FileResponse, responses=DOWNLOAD.responses)
async def download(request: Request, shard: str, token: str, name: str) -> Response:
    """The MP4; 206 for a satisfiable Range, 416 for another one, 410 when its time is over."""
    parts = services(request)
    key = f"files/{shard}/{token}/{name}"
    path = parts.storage.find(key)
    if path is None:
        raise Gone if await parts.reads.video_is_known(key) else NotFound("File not found")
    headers = {
        "Cache-Control": "private, max-age=31536000, immutable",
        "X-Content-Type-Options": "nosniff",
        "Content-Security-Policy": "sandbox",
        "Access-Control-Allow-Origin": "*",
    }
    return _Media(path, media_type="video/mp4", filename=name, content_disposition_type="inline", headers=headers)
