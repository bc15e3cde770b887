"""What the playground asks beside fal's own routes: who it talks to, an owner's requests, and how far one is."""

from contextlib import ExitStack
from typing import Annotated, Final

from fastapi import APIRouter, Query, Request
from fastapi.responses import FileResponse, Response
from starlette.concurrency import run_in_threadpool

from server.api.auth import current_owner, owner_or_none
from server.api.media_response import MediaResponse
from server.api.middleware.request_ids import REQUEST_ID
from server.api.model_response import ModelResponse
from server.api.playground_models import Crop, Limits, ProgressAnswer, SessionInfo
from server.api.public_url import base_url
from server.api.route_docs import (
    DELETE,
    HISTORY,
    HISTORY_ENTRY,
    PREVIEW,
    PROGRESS,
    SESSION,
    STORED_IMAGE,
)
from server.api.services import services
from server.api.stored_jobs import find_job
from server.errors import Gone, NotFound
from server.fal.schemas import ENDPOINT, EXAMPLE_PROMPT, HunyuanCustomInput
from server.generator.state import TAKES_JOBS, Phase
from server.jobs.history import entry
from server.jobs.job import Status
from server.jobs.worker_registry import Worker
from server.logs import name_request
from server.storage.files import Storage
from server.untrusted.media_types import HEAD_BYTES, media_type
from server.version import VERSION

router = APIRouter(prefix="/playground", tags=["playground"])

PageSize = Annotated[int, Query(ge=1, le=100, description="How many requests at most.")]
Before = Annotated[int | None, Query(ge=0, le=2**31 - 1, description="`next` of the page before.")]

_REQUEST: Final = "/requests/{request_id}"
_SCHEMA: Final = HunyuanCustomInput.model_json_schema()
_POLICY: Final = "default-src 'none'; sandbox"


@router.get("/session", responses=SESSION.responses)
async def session(request: Request) -> Response:
    """Version, endpoint, schema and limits; who the caller is, and whether a video could be made now. No key needed."""
    parts = services(request)
    owner = owner_or_none(request)
    workers = await run_in_threadpool(parts.workers.fresh, parts.settings.jobs.heartbeat_stale_s)
    reason = _reason_not_ready(workers)
    answer = SessionInfo(
        version=VERSION,
        endpoint=ENDPOINT,
        keys_required=parts.keys.required(),
        owner=owner,
        ready=reason is None,
        reason=reason if owner is not None else None,
        model=next((worker.detail for worker in workers if worker.state == Phase.READY), None) if owner else None,
        base_url=base_url(request),
        limits=Limits.of(parts.settings),
        input_schema=_SCHEMA,
        example={"prompt": EXAMPLE_PROMPT},
        crop=Crop.of(parts.settings.image),
    )
    return ModelResponse(answer)


@router.get("/requests", responses=HISTORY.responses)
async def requests(request: Request, limit: PageSize = 24, before: Before = None) -> Response:
    """The caller's requests, the newest first."""
    history = services(request).history
    page = await run_in_threadpool(history.page, current_owner(request), limit=limit, before=before)
    return ModelResponse(page)


@router.get(_REQUEST, responses=HISTORY_ENTRY.responses)
async def one_request(request: Request, request_id: str) -> Response:
    """One of them."""
    job = await find_job(request, request_id)
    return ModelResponse(entry(job), headers={REQUEST_ID: job.id})


@router.get(f"{_REQUEST}/progress", responses=PROGRESS.responses)
async def progress(request: Request, request_id: str) -> Response:
    """Where a request is, in numbers; cheap enough to be asked every second."""
    parts = services(request)
    found = await parts.progress.of(request_id, owner=current_owner(request))
    if found is None:
        raise NotFound
    state, so_far = found
    name_request(state.id)
    position = await parts.reads.position(state) if state.status is Status.IN_QUEUE else None
    return ModelResponse(ProgressAnswer.of(state.status, position, so_far), headers={REQUEST_ID: state.id})


@router.get(f"{_REQUEST}/preview", response_class=Response, responses=PREVIEW.responses)
async def preview(request: Request, request_id: str) -> Response:
    """What the clip will about look like: a small animated WebP; 404 when there is none (yet, or any more)."""
    picture = await services(request).progress.preview(request_id, owner=current_owner(request))
    if picture is None:
        raise NotFound
    return Response(picture, media_type="image/webp", headers={REQUEST_ID: request_id, "Cache-Control": "no-store"})


@router.get(f"{_REQUEST}/image", response_class=FileResponse, responses=STORED_IMAGE.responses)
async def image(request: Request, request_id: str) -> Response:
    """The identity image: as it was checked, or before that as it came along."""
    job = await find_job(request, request_id)
    key = job.image_key or job.source_key
    if key is None:
        raise Gone if job.media_deleted else NotFound("File not found")
    # From a bucket too it comes through here: it is for one page, which the bucket need not know.
    answer = await run_in_threadpool(_image_response, services(request).storage, key)
    answer.headers.update({REQUEST_ID: job.id, "Cache-Control": "no-store"})
    return answer


@router.delete(_REQUEST, status_code=204, response_class=Response, responses=DELETE.responses)
async def delete(request: Request, request_id: str) -> Response:
    """Remove a request that is over: its video, thumbnail, image, log and record; 400 for one that is not."""
    job = await find_job(request, request_id)
    await run_in_threadpool(services(request).deletion.delete, job)
    return Response(status_code=204, headers={REQUEST_ID: job.id})


def _image_response(storage: Storage, key: str) -> MediaResponse:
    with ExitStack() as opened:
        stored = opened.enter_context(storage.local(key))
        if stored is None:
            raise NotFound("File not found")
        try:
            with stored.open("rb") as file:
                kind = media_type(file.read(HEAD_BYTES))
        except FileNotFoundError:  # deleted at this moment
            raise NotFound("File not found") from None
        held = opened.pop_all()
        return MediaResponse(stored, media_type=kind, max_age_s=0, policy=_POLICY, any_page=False, held=held)


def _reason_not_ready(workers: list[Worker]) -> str | None:
    """Why no video can be made now, None if one can."""
    working = [worker for worker in workers if not worker.draining]
    if any(worker.state in TAKES_JOBS for worker in working):
        return None
    if workers and not working:
        return "draining: no new work is begun"
    return next((worker.detail for worker in working), "no worker is running")
