"""The `hunyuan-custom` command."""

import logging
import socket
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from server.cli import keys as cli_admin
from server.cli import bench as cli_bench
from server.errors import SettingsError
from server.logs import configure_logging
from server.settings import CONFIGS, Settings, is_reached_from_elsewhere, load_settings
from weights.commands import app as weights_app

if TYPE_CHECKING:
    from server.serve.tls import TlsFiles

logger = logging.getLogger(__name__)

app = typer.Typer(
    help="Self-hosted, drop-in replacement of fal's fal-ai/hunyuan-custom endpoint.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)

Config = Annotated[Path, typer.Option(help="TOML file with the settings of this deployment.")]
SupervisorPid = Annotated[int | None, typer.Option(help="The process to die with.", hidden=True)]
DataDir = Annotated[Path | None, typer.Option(help="Where database and files live (data_dir).")]
TlsCert = Annotated[Path | None, typer.Option(help="PEM certificate to serve https with (api.tls_cert).")]
TlsKey = Annotated[Path | None, typer.Option(help="Its PEM key (api.tls_key).")]
_DEMO_CONFIG = CONFIGS / "demo.toml"


@app.command()
def serve(
    *,
    config: Config = _DEMO_CONFIG,
    host: Annotated[str | None, typer.Option(help="Address to listen on (api.host).")] = None,
    port: Annotated[int | None, typer.Option(help="Port to listen on, 0 for a free one (api.port).")] = None,
    data_dir: DataDir = None,
    tls_cert: TlsCert = None,
    tls_key: TlsKey = None,
    tls_self_signed: Annotated[
        bool, typer.Option("--tls-self-signed", help="Make a certificate under data_dir/tls; print what clients need.")
    ] = False,
) -> None:
    """Run the server: API, worker and generator, until Ctrl-C or SIGTERM."""
    from server.serve.supervisor import Supervisor

    configure_logging("serve")
    settings = _settings(config, data_dir, host=host, port=port, tls_cert=tls_cert, tls_key=tls_key)
    tls = _self_signed(settings) if tls_self_signed else None
    if tls is not None:
        tls_cert, tls_key = tls.certificate, tls.key
        settings = _settings(config, data_dir, host=host, port=port, tls_cert=tls_cert, tls_key=tls_key)
    _check_storage(settings)
    only_api = {"--host": host, "--tls-cert": tls_cert, "--tls-key": tls_key}
    api_arguments = [word for name, value in only_api.items() if value is not None for word in (name, str(value))]
    with Supervisor(settings, _child_arguments(config, data_dir), api_arguments=api_arguments) as server:
        typer.echo(f"hunyuan-custom-server listens on {server.url}")
        _print_first_key(settings)
        if tls is not None:
            from server.serve.tls import environment_lines

            typer.echo(environment_lines(tls, settings.api.public_base_url or server.url))
        server.run_until_signal()


@app.command()
def demo(data_dir: DataDir = None) -> None:
    """Start a server on a free port, make the example video with fal's own client, print its path."""
    from server.cli.demo import run_demo

    configure_logging("demo", logging.WARNING)
    typer.echo(run_demo(_settings(_DEMO_CONFIG, data_dir, port=0), _child_arguments(_DEMO_CONFIG, data_dir)))


@app.command()
def api(
    *,
    config: Config = _DEMO_CONFIG,
    data_dir: DataDir = None,
    host: Annotated[str | None, typer.Option(help="Address to listen on (api.host).")] = None,
    tls_cert: TlsCert = None,
    tls_key: TlsKey = None,
    listen_fd: Annotated[int | None, typer.Option(help="An inherited listening socket.", hidden=True)] = None,
    supervisor: SupervisorPid = None,
) -> None:
    """Run the API process alone (many per cluster)."""
    from server.api.process import run_api
    from server.parent_death import die_with_parent

    if supervisor is not None:
        die_with_parent(supervisor)
    configure_logging("api")
    settings = _settings(config, data_dir, host=host, tls_cert=tls_cert, tls_key=tls_key)
    if listen_fd is None:
        _check(settings)
        _print_first_key(settings)
        run_api(settings, None)
    else:
        run_api(settings, socket.socket(fileno=listen_fd))


@app.command()
def worker(config: Config = _DEMO_CONFIG, data_dir: DataDir = None, supervisor: SupervisorPid = None) -> None:
    """Run a worker process with its generator (one per GPU)."""
    from server.parent_death import die_with_parent
    from server.worker.process import run_worker

    if supervisor is not None:
        die_with_parent(supervisor)
    configure_logging("worker")
    settings = _settings(config, data_dir)
    _check(settings)
    run_worker(settings, supervised=supervisor is not None)


@app.command()
def migrate(config: Config = _DEMO_CONFIG, data_dir: DataDir = None) -> None:
    """Create or upgrade the database and exit; `serve` does it by itself."""
    from server.db.tables import migrate as migrate_database

    settings = _settings(config, data_dir)
    migrate_database(settings.database_url, settings.data_dir / "migrate.lock")


@app.command()
def drain(
    config: Config = _DEMO_CONFIG,
    data_dir: DataDir = None,
    undo: Annotated[bool, typer.Option(help="Take jobs again.")] = False,
) -> None:
    """Have all workers finish what they run and take no more jobs; returns when none is running."""
    from server.serve.drain import drain_workers

    drain_workers(_settings(config, data_dir), undo=undo)
    typer.echo("workers take jobs again" if undo else "drained: no job is running, waiting ones stay in the queue")


cli_admin.register(app)
cli_bench.register(app)
app.add_typer(weights_app, name="weights")


def main() -> None:
    """Entry point: a wrong setting is one line on stderr and exit code 2."""
    try:
        app()
    except SettingsError as error:
        typer.echo(f"error: {error}", err=True)
        sys.exit(2)


def _settings(config: Path, data_dir: Path | None, **api: Any) -> Settings:
    """Settings with the options of `serve` and `api` on top; `api` are keys of that section."""
    door = {key: value for key, value in api.items() if value is not None}
    overrides: dict[str, Any] = {"api": door} if door else {}
    if data_dir is not None:
        overrides["data_dir"] = data_dir
    return load_settings(config, overrides)


def _check_storage(settings: Settings) -> None:
    """A wrong bucket or key is found now, and not when the first video is to be stored."""
    from server.storage.local import open_storage

    open_storage(settings).check()


def _check(settings: Settings) -> None:
    """What processes find that are started one by one: `serve` has migrated the database for its own."""
    from server.db import schema_version
    from server.db.tables import create_engine

    database = create_engine(settings.database_url)
    schema_version.check(database)
    database.dispose()
    _check_storage(settings)


def _child_arguments(config: Path, data_dir: Path | None) -> list[str]:
    """The options that lead a child process to the same settings; its socket is inherited."""
    return ["--config", str(config), *(["--data-dir", str(data_dir)] if data_dir else [])]


def _self_signed(settings: Settings) -> "TlsFiles":
    """A certificate for every name under which this server may be called."""
    import datetime
    from urllib.parse import urlsplit

    from server.serve.tls import self_signed

    public = urlsplit(settings.api.public_base_url or "").hostname
    names = [name for name in (settings.api.host, public) if name and name not in {"0.0.0.0", "::"}]  # noqa: S104
    return self_signed(settings.data_dir / "tls", names, datetime.datetime.now(datetime.UTC))


def _print_first_key(settings: Settings) -> None:
    """Whoever is reached from elsewhere needs keys; where nobody has one, one is made and shown this once."""
    from server.api.key_table import first_key
    from server.db.tables import create_engine

    made = first_key(create_engine(settings.database_url)) if is_reached_from_elsewhere(settings.api) else None
    if made is not None:
        typer.echo(f"First key, shown this once; set it as FAL_KEY: {made}")


if __name__ == "__main__":
    main()
