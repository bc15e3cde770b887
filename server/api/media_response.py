"""A stored file as an answer, and only as its declared type: most are public to all who know the URL, from any page."""

from contextlib import ExitStack, nullcontext
from pathlib import Path

from fastapi.responses import FileResponse, RedirectResponse, Response
from starlette.concurrency import run_in_threadpool
from starlette.types import Message, Receive, Scope, Send

from server.errors import BadRange, NotFound
from server.storage.files import Storage

_REFUSALS = {400, 416}
_LINK = {"Cache-Control": "no-store", "Access-Control-Allow-Origin": "*"}


class MediaResponse(FileResponse):
    """Inline, with ranges; `policy` is its Content-Security-Policy. `any_page`: whether every web page may read it.

    `held` is closed when the answer has ended, however it ends.
    """

    chunk_size = 512 * 1024  # Starlette's 64 KiB a read cost a thread switch each

    def __init__(
        self,
        path: Path,
        *,
        media_type: str | None,
        max_age_s: int,
        policy: str,
        any_page: bool = True,
        held: ExitStack | None = None,
    ) -> None:
        headers = {
            "Cache-Control": f"private, max-age={max_age_s}, immutable",
            "X-Content-Type-Options": "nosniff",
            "Content-Security-Policy": policy,
        }
        if any_page:
            headers["Access-Control-Allow-Origin"] = "*"
        self._held = held
        super().__init__(
            path, media_type=media_type, filename=path.name, content_disposition_type="inline", headers=headers
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the file or the part that was asked for.

        Raises:
            BadRange: the file has no such part; Starlette would say so in plain text.
            NotFound: it was deleted since it was found.
        """

        async def send_unless_refused(message: Message) -> None:
            if message["type"] == "http.response.start" and message["status"] in _REFUSALS:
                raise BadRange(int(self.headers["content-length"]))
            await send(message)

        with self._held or nullcontext():
            try:
                self.stat_result = await run_in_threadpool(Path(self.path).stat)
            except FileNotFoundError:
                raise NotFound("File not found") from None
            self.set_stat_headers(self.stat_result)
            await super().__call__(scope, receive, send_unless_refused)


async def find_stored(storage: Storage, key: str, method: str) -> Path | Response | None:
    """The file, or the redirect to where it is."""
    found = await run_in_threadpool(storage.download, key, method)
    return RedirectResponse(found, 302, _LINK) if isinstance(found, str) else found
