"""Pages for browsers: the playground, the operator page, and the files they load."""

from fastapi import APIRouter, Request
from fastapi.responses import RedirectResponse, Response

from server.api.services import services
from server.errors import NotFound

router = APIRouter(include_in_schema=False)


@router.get("/")
async def playground(request: Request) -> Response:
    """The page that makes videos."""
    return _page(request, "playground")


@router.get("/admin")
async def admin(request: Request) -> Response:
    """The page for the operator."""
    if request.scope["raw_path"].endswith(b"/"):  # the files of a page are named relative to it
        return RedirectResponse("../admin", 308)
    return _page(request, "admin")


@router.get("/static/{name}")
async def static(request: Request, name: str) -> Response:
    """A file that a page loads, or a helper file for clients."""
    found = services(request).page_files.static.get(name)
    if found is None:
        raise NotFound("File not found")
    return found.answer(request.headers)


def _page(request: Request, name: str) -> Response:
    found = services(request).page_files.pages.get(name)
    if found is None:
        raise NotFound("Path not found")
    return found.answer(request.headers)
