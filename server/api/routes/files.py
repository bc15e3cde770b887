"""Download of finished videos and their thumbnails: public to all who know the URL, with Range for `<video>`.

From a bucket they come without passing through here: 302 to a link that is good for a few minutes.
"""

from fastapi import APIRouter, Request
from fastapi.responses import FileResponse, Response

from server.api.media_response import MediaResponse, find_stored
from server.api.middleware.head_requests import asked_method
from server.api.route_docs import DOWNLOAD
from server.api.services import services
from server.errors import Gone, NotFound
from server.jobs.job import video_of

router = APIRouter(tags=["files"])


@router.get("/files/{shard}/{token}/{name}", response_class=FileResponse, responses=DOWNLOAD.responses)
async def download(request: Request, shard: str, token: str, name: str) -> Response:
    """The MP4 or its thumbnail; 206 for a satisfiable Range, 416 for another one, 410 when its time is over."""
    parts = services(request)
    key = f"files/{shard}/{token}/{name}"
    stored = await find_stored(parts.storage, key, asked_method(request.scope))
    if stored is None:
        raise Gone if await parts.reads.video_is_known(key) else NotFound("File not found")
    if isinstance(stored, Response):
        return stored
    kind = "video/mp4" if video_of(key) == key else "image/webp"
    return MediaResponse(stored, media_type=kind, max_age_s=365 * 86400, policy="sandbox")
