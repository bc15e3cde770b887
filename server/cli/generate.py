"""`hunyuan-custom generate`: one video, by this machine or by a server."""

import base64
import logging
import os
import secrets
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, TypeAlias

import typer

from server.cli.input_options import with_input_options
from server.cli.interrupts import interrupts
from server.cli.options import (
    DEMO_CONFIG,
    AsJson,
    Config,
    DataDir,
    Key,
    ServerUrl,
    examples,
    make_data_dir,
    read_settings,
)
from server.cli.output import print_json
from server.errors import FileTooLarge, ModelError, SettingsError
from server.fal.data_uri import PREFIX, is_data_uri
from server.fal.schemas import validate_input
from server.generate.outcome import RequestFailed, Video
from server.logs import configure_logging
from weights.progress_bar import ProgressBar, duration

if TYPE_CHECKING:
    from server.generate.local import LocalGeneration
    from server.generate.remote import RemoteGeneration

Cancelled: TypeAlias = Callable[[], bool]

_RANDOM_SEEDS: Final = (None, -1)  # as the API has it
_LARGEST_FILE: Final = 64 * 2**20  # bytes; a larger one is not read, since no server takes it

EXAMPLES: Final = examples(
    'hunyuan-custom generate woman.jpg "A woman is playing a violin."',
    'hunyuan-custom generate woman.jpg "She dances in the rain." --resolution 720p --seed 7 -o rain.mp4',
    'hunyuan-custom generate woman.jpg "She smiles." --config configs/gpu-80gb.toml',
    'hunyuan-custom generate woman.jpg "She smiles." --server http://127.0.0.1:8000 --json',
)


def register(app: typer.Typer) -> None:
    """Add the command of this file."""
    app.command(epilog=EXAMPLES)(generate)


@with_input_options
def generate(
    image: Annotated[str, typer.Argument(help="The identity image: a file or an http(s) URL.")],
    prompt: Annotated[str, typer.Argument(help="What the subject does, in at most 500 characters.")],
    *,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="The MP4 to write; by default video-SEED.mp4 in this folder.")
    ] = None,
    server: ServerUrl = None,
    key: Key = None,
    config: Config = DEMO_CONFIG,
    data_dir: DataDir = None,
    as_json: AsJson = False,
    **fields: Any,
) -> None:
    """Make a video of the subject of an image and print its path.

    Without --server the model of --config makes it on this machine, and no server is needed.

    An --output that exists is replaced. Ctrl-C cancels the request.
    """
    configure_logging("generate", logging.CRITICAL)  # what goes wrong is the command's own line
    try:
        with ProgressBar() as bar, interrupts() as cancelled, ExitStack() as opened:
            wanted = validate_input({**fields, "prompt": prompt, "image_url": _image_url(image)})
            seed = secrets.randbelow(2**32) if wanted.seed in _RANDOM_SEEDS else int(wanted.seed or 0)
            path = _writable(output or Path(f"video-{seed}.mp4"))
            way = (
                _there(server, key, bar, cancelled, opened)
                if server is not None
                else _here(config, data_dir, bar, cancelled)
            )
            video = way.run(wanted, seed=seed, output=path)
    except (RequestFailed, ModelError) as error:
        if as_json:
            response = error.response()
            print_json({"error": {"status": response.status, "body": response.body}})
        raise
    _report(video, as_json=as_json)


def _here(config: Path, data_dir: Path | None, bar: ProgressBar, cancelled: Cancelled) -> "LocalGeneration":
    from server.generate.local import LocalGeneration

    settings = read_settings(config, data_dir)
    make_data_dir(settings)
    return LocalGeneration(settings, bar, cancelled, log=settings.data_dir / "generate.log")


def _there(
    server: str, key: str | None, bar: ProgressBar, cancelled: Cancelled, opened: ExitStack
) -> "RemoteGeneration":
    from server.generate.remote import RemoteGeneration
    from server.generate.server_calls import ServerCalls

    return RemoteGeneration(opened.enter_context(ServerCalls(server, key)), bar, cancelled)


def _image_url(image: str) -> str:
    """The image as the API takes it: a file travels in the request."""
    if is_data_uri(image) or image.lower().startswith(("http://", "https://")):
        return image
    path = Path(image)
    try:
        with path.open("rb") as file:
            content = file.read(_LARGEST_FILE + 1)  # its size is not asked: a device has none, and never ends
    except OSError as error:
        raise SettingsError(f"{image}: {error.strerror}") from error
    if len(content) > _LARGEST_FILE:
        raise FileTooLarge
    return f"{PREFIX};base64,{base64.b64encode(content).decode()}"


def _writable(path: Path) -> Path:
    """Found out before a video is made that could not be kept."""
    if path.is_dir():
        raise SettingsError(f"--output: {path} is a directory")
    if not path.parent.is_dir():
        raise SettingsError(f"--output: {path.parent} is no directory")
    if path.exists() and not path.is_file():  # the video would take the place of the device
        raise SettingsError(f"--output: {path} is no file")
    if not all(os.access(needed, os.W_OK) for needed in (path.parent, path) if needed.exists()):
        raise SettingsError(f"--output: {path} cannot be written")
    return path


def _report(video: Video, *, as_json: bool) -> None:
    if as_json:
        print_json(asdict(video))
        return
    took = "" if video.seconds is None else f", rendered in {duration(video.seconds)}"
    typer.echo(f"seed {video.seed}{took}", err=True)
    typer.echo(str(video.path))
