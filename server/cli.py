"""The `hunyuan-custom` command."""

import ipaddress
import logging
import signal
import socket
import sys
import threading
from pathlib import Path
from typing import Annotated, Any

import typer

from server.errors import SettingsError
from server.logs import configure_logging
from server.settings import CONFIGS, Settings, load_settings

logger = logging.getLogger(__name__)

app = typer.Typer(
    help="Self-hosted, drop-in replacement of fal's fal-ai/hunyuan-custom endpoint.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)

Config = Annotated[Path, typer.Option(help="TOML file with the settings of this deployment.")]
DataDir = Annotated[Path | None, typer.Option(help="Where database and files live (data_dir).")]
_DEMO_CONFIG = CONFIGS / "demo.toml"


@app.command()
def serve(
    config: Config = _DEMO_CONFIG,
    host: Annotated[str | None, typer.Option(help="Address to listen on (api.host).")] = None,
    port: Annotated[int | None, typer.Option(help="Port to listen on, 0 for a free one (api.port).")] = None,
    data_dir: DataDir = None,
) -> None:
    """Run the server: API, worker and generator, until Ctrl-C or SIGTERM."""
    from server.supervisor import Supervisor

    configure_logging("serve")
    settings = _settings(config, data_dir, host=host, port=port)
    _refuse_beyond_loopback(settings.api.host)
    stopping = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopping.set())
    with Supervisor(settings, _child_arguments(config, data_dir)) as server:
        typer.echo(f"hunyuan-custom-server listens on {server.url}")
        stopping.wait()
        logger.info("stopping")


@app.command()
def demo(data_dir: DataDir = None) -> None:
    """Start a server on a free port, make the example video with fal's own client, print its path."""
    from server.demo import run_demo

    configure_logging("demo", logging.WARNING)
    typer.echo(run_demo(_settings(_DEMO_CONFIG, data_dir, port=0), _child_arguments(_DEMO_CONFIG, data_dir)))


@app.command()
def api(
    config: Config = _DEMO_CONFIG,
    data_dir: DataDir = None,
    listen_fd: Annotated[int | None, typer.Option(help="An inherited listening socket.", hidden=True)] = None,
) -> None:
    """Run the API process alone (many per cluster)."""
    from server.api_process import run_api
    from server.parent_death import die_with_parent

    configure_logging("api")
    settings = _settings(config, data_dir)
    if listen_fd is None:
        _refuse_beyond_loopback(settings.api.host)
        run_api(settings, None)
    else:
        die_with_parent()
        run_api(settings, socket.socket(fileno=listen_fd))


@app.command()
def worker(config: Config = _DEMO_CONFIG, data_dir: DataDir = None) -> None:
    """Run a worker process with its generator (one per GPU)."""
    from server.parent_death import die_with_parent
    from server.worker import run_worker

    configure_logging("worker")
    die_with_parent()
    run_worker(_settings(config, data_dir))


@app.command()
def migrate(config: Config = _DEMO_CONFIG, data_dir: DataDir = None) -> None:
    """Create or upgrade the database and exit; `serve` does it by itself."""
    from server.database import migrate as migrate_database

    settings = _settings(config, data_dir)
    migrate_database(settings.database_url, settings.data_dir / "migrate.lock")


def main() -> None:
    """Entry point: a wrong setting is one line on stderr and exit code 2."""
    try:
        app()
    except SettingsError as error:
        typer.echo(f"error: {error}", err=True)
        sys.exit(2)


def _settings(config: Path, data_dir: Path | None, *, host: str | None = None, port: int | None = None) -> Settings:
    door = {key: value for key, value in {"host": host, "port": port}.items() if value is not None}
    overrides: dict[str, Any] = {"api": door} if door else {}
    if data_dir is not None:
        overrides["data_dir"] = data_dir
    return load_settings(config, overrides)


def _child_arguments(config: Path, data_dir: Path | None) -> list[str]:
    """The options that lead a child process to the same settings; its socket is inherited."""
    return ["--config", str(config), *(["--data-dir", str(data_dir)] if data_dir else [])]


def _refuse_beyond_loopback(host: str) -> None:
    """Without keys, only this machine may talk to the server."""
    try:
        local = host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        local = False
    if not local:
        raise SettingsError(
            f"api.host: {host} is not a loopback address; this version has no keys and serves this machine only"
        )


if __name__ == "__main__":
    main()
