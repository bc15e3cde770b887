"""A video by a server: through fal's queue API, as its clients do it."""

import time
import uuid
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from server.errors import request_failure
from server.fal.schemas import ENDPOINT, HunyuanCustomInput
from server.generate.outcome import RequestFailed, Video
from server.generate.server_calls import ServerAway, ServerCalls
from server.jobs.job import Status
from server.jobs.outcomes import CANCELLED
from server.logs import spelled_out
from weights.progress_bar import ProgressBar

_POLL_S: Final = 0.5
_PATIENCE_S: Final = 300.0  # for a server that restarts while the request waits or runs: it loses neither
_CANCEL_S: Final = 30.0  # what a generator may take to stop
_PIECE: Final = 2**20
_NOT_FOUND: Final = 404
_STEP: Final = "Denoising step "  # a line for every step, which the bar shows already


class RemoteGeneration:
    """One request. `cancelled` is asked all the time."""

    def __init__(self, server: ServerCalls, bar: ProgressBar, cancelled: Callable[[], bool]) -> None:
        self._server = server
        self._bar = bar
        self._cancelled = cancelled
        self._lines = 0
        self._has_progress = True

    def run(self, wanted: HunyuanCustomInput, *, seed: int, output: Path) -> Video:
        """Make the video and download it.

        Raises:
            RequestFailed: the server's own error, or that of the request.
            ServerAway: it cannot be reached, or for too long.
            OSError: the video cannot be written.
        """
        body = wanted.model_dump() | {"seed": seed}
        once = {"Idempotency-Key": str(uuid.uuid4())}
        submitted = self._server.ask("POST", f"/queue/{ENDPOINT}", expected="request_id", json=body, headers=once)
        path = f"/queue/{ENDPOINT}/requests/{submitted['request_id']}"
        try:
            status = self._wait(path, submitted["request_id"])
        except (OSError, KeyboardInterrupt):  # the terminal is gone: no one waits for the video
            with suppress(RequestFailed, ServerAway):
                self._server.ask("PUT", f"{path}/cancel", expected="status")
            raise
        result = self._server.ask("GET", path, expected="video", patience_s=_PATIENCE_S)
        url = result["video"]["url"]
        self._bar.show("download")
        self._download(url, output)
        return Video(
            path=output,
            seed=result["seed"],
            seconds=status.get("metrics", {}).get("inference_time"),
            request_id=submitted["request_id"],
            url=url,
        )

    def _wait(self, path: str, request_id: str) -> dict[str, Any]:
        """The status of the finished request."""
        while True:
            if self._cancelled():
                self._cancel(path)
            status = self._server.ask(
                "GET", f"{path}/status", expected="status", params={"logs": "1"}, patience_s=_PATIENCE_S
            )
            self._say_new(status.get("logs") or [])
            if status["status"] == Status.COMPLETED:
                return status
            if status["status"] == Status.IN_QUEUE:
                self._bar.show(f"in the queue, {status.get('queue_position', 0)} before this request")
            else:
                self._show_progress(request_id)
            time.sleep(_POLL_S)

    def _say_new(self, lines: list[dict[str, Any]]) -> None:
        for line in lines[self._lines :]:
            if not line["message"].startswith(_STEP):
                self._bar.say(spelled_out(line["message"]))
        self._lines = max(self._lines, len(lines))

    def _show_progress(self, request_id: str) -> None:
        """From a route beside fal's, which an older server does not have."""
        progress: dict[str, Any] = {}
        if self._has_progress:
            try:
                progress = self._server.ask("GET", f"/playground/requests/{request_id}/progress", expected="stage")
            except RequestFailed as error:
                self._has_progress = error.response().status != _NOT_FOUND
            except ServerAway:
                pass  # the next status call waits for it
        stage = progress.get("stage") or "in progress"
        self._bar.show(stage, progress.get("done", 0), progress.get("total", 0), left_s=progress.get("seconds_left"))

    def _cancel(self, path: str) -> None:
        """Ask for the end of the request and wait until it has stopped.

        Raises:
            RequestFailed: it is cancelled. One that was finished already is not.
        """
        self._bar.show("cancelling")
        try:
            self._server.ask("PUT", f"{path}/cancel", expected="status")
        except RequestFailed as error:
            if error.response().body.get("status") == "ALREADY_COMPLETED":
                return
            raise
        deadline = time.monotonic() + _CANCEL_S
        while time.monotonic() < deadline:
            if self._server.ask("GET", f"{path}/status", expected="status")["status"] == Status.COMPLETED:
                break
            time.sleep(_POLL_S)
        raise RequestFailed(CANCELLED)

    def _download(self, url: str, output: Path) -> None:
        part = output.with_name(f".{uuid.uuid4()}.part")  # two may write the same video
        try:
            with self._server.download(url) as answer, part.open("wb") as file:
                if not answer.is_success:
                    raise RequestFailed(
                        request_failure(answer.status_code, "", f"{url}: HTTP status {answer.status_code}")
                    )
                for piece in answer.iter_bytes(_PIECE):
                    file.write(piece)
            part.replace(output)
        finally:
            part.unlink(missing_ok=True)
