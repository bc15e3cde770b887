"""`hunyuan-custom demo`: a server, the endpoint's own example request through fal's client, and the video's path."""

import time
from collections.abc import Sequence
from pathlib import Path

import httpx
import typer

from server.cli.options import make_data_dir
from server.fal.example import PHOTO
from server.fal.schemas import ENDPOINT, EXAMPLE_PROMPT
from server.serve.readiness import wait_until_ready
from server.serve.supervisor import Supervisor
from server.settings import Settings


def run_demo(settings: Settings, arguments: Sequence[str]) -> Path:
    """Make the example video; returns the path of the MP4. The server's own logs go into a file."""
    log = settings.data_dir / "demo.log"
    make_data_dir(settings)
    with Supervisor(settings, arguments, log=log) as server:
        typer.echo(f"Server: {server.url}, its log: {log}")
        typer.echo("Demo model: untrained and hand-set. It shows that everything works, not what HunyuanCustom can do.")
        typer.echo("To see it in a browser: `make serve`, or `hunyuan-custom serve`; open the address that it prints.")
        wait_until_ready(server.url, timeout_s=settings.generator.load_timeout_s)
        return _request_video(server.url, settings.data_dir / "demo.mp4")


def _request_video(url: str, path: Path) -> Path:
    import fal_client

    from server.clients.fal_plain_http import use_server

    use_server(url)
    shown = _Progress()
    started = time.monotonic()
    result = fal_client.subscribe(
        ENDPOINT,
        arguments={"prompt": EXAMPLE_PROMPT, "image_url": fal_client.encode_file(PHOTO)},
        with_logs=True,
        on_queue_update=shown.update,
    )
    path.write_bytes(httpx.get(result["video"]["url"], trust_env=False).raise_for_status().content)
    typer.echo(f"Done in {time.monotonic() - started:.0f} s, seed {result['seed']}:")
    return path


class _Progress:
    """Prints the queue position when it changes, and every log line once."""

    def __init__(self) -> None:
        self._position: int | None = None
        self._lines = 0

    def update(self, status: object) -> None:
        """Called by fal's client at every poll."""
        import fal_client

        if isinstance(status, fal_client.Queued) and status.position != self._position:
            self._position = status.position
            typer.echo(f"In the queue, {status.position} before this request")
        elif isinstance(status, fal_client.InProgress | fal_client.Completed):
            lines = status.logs or []
            for line in lines[self._lines :]:
                typer.echo(line["message"])
            self._lines = max(self._lines, len(lines))
