"""The commands that run a server or one of its processes: serve, demo, api, worker."""

import datetime
import importlib.util
import logging
import socket
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated
from urllib.parse import urlsplit

import typer

from server.cli.options import DEMO_CONFIG, Config, DataDir, examples, make_data_dir, read_settings
from server.errors import SettingsError
from server.logs import configure_logging
from server.quick_start import uncollected
from server.settings import Settings, is_reached_from_elsewhere

if TYPE_CHECKING:
    from fastapi import FastAPI

    from server.serve.tls import TlsFiles

Host = Annotated[str | None, typer.Option(help="Address to listen on (api.host).")]
TlsCert = Annotated[Path | None, typer.Option(help="PEM certificate to serve https with (api.tls_cert).")]
TlsKey = Annotated[Path | None, typer.Option(help="Its PEM key (api.tls_key).")]
SupervisorPid = Annotated[int | None, typer.Option(help="The process to die with.", hidden=True)]


def register(app: typer.Typer) -> None:
    """Add the commands of this file."""
    for command, example in (
        (serve, "hunyuan-custom serve --config configs/gpu-80gb.toml --port 9000"),
        (demo, "hunyuan-custom demo"),
        (api, "hunyuan-custom api --config configs/cluster.toml --host 0.0.0.0"),
        (worker, "hunyuan-custom worker --config configs/cluster.toml"),
    ):
        app.command(epilog=examples(example))(command)


def serve(
    *,
    config: Config = DEMO_CONFIG,
    host: Host = None,
    port: Annotated[int | None, typer.Option(help="Port to listen on, 0 for a free one (api.port).")] = None,
    data_dir: DataDir = None,
    tls_cert: TlsCert = None,
    tls_key: TlsKey = None,
    tls_self_signed: Annotated[
        bool, typer.Option("--tls-self-signed", help="Make a certificate under data_dir/tls; print what clients need.")
    ] = False,
) -> None:
    """Run the server: API, worker and generator, until Ctrl-C or SIGTERM."""
    with uncollected():
        from server.serve.supervisor import Supervisor

    configure_logging("serve")
    settings = read_settings(config, data_dir, host=host, port=port, tls_cert=tls_cert, tls_key=tls_key)
    configure_logging("serve", log_format=settings.log.format)
    make_data_dir(settings)
    tls = _self_signed(settings) if tls_self_signed else None
    if tls is not None:
        tls_cert, tls_key = tls.certificate, tls.key
        settings = read_settings(config, data_dir, host=host, port=port, tls_cert=tls_cert, tls_key=tls_key)
    _check_storage(settings)
    only_api = {"--host": host, "--tls-cert": tls_cert, "--tls-key": tls_key}
    api_arguments = [word for name, value in only_api.items() if value is not None for word in (name, str(value))]
    with Supervisor(settings, _child_arguments(config, data_dir), api_arguments=api_arguments) as server:
        typer.echo(f"hunyuan-custom-server listens on {server.url}")
        _print_first_key(settings)
        typer.echo("Open that address in a browser for the playground, and /admin for the operator's page.")
        if tls is not None:
            from server.serve.tls import environment_lines

            typer.echo(environment_lines(tls, settings.api.public_base_url or server.url))
        server.run_until_signal()


def demo(data_dir: DataDir = None) -> None:
    """Start a server on a free port, make the example video with fal's own client, print its path."""
    from server.cli.demo import run_demo

    configure_logging("demo", logging.WARNING)
    if importlib.util.find_spec("fal_client") is None:
        raise SettingsError("demo uses fal's own client: pip install 'hunyuan-custom-server[demo]'")
    typer.echo(run_demo(read_settings(DEMO_CONFIG, data_dir, port=0), _child_arguments(DEMO_CONFIG, data_dir)))


def api(
    *,
    config: Config = DEMO_CONFIG,
    data_dir: DataDir = None,
    host: Host = None,
    tls_cert: TlsCert = None,
    tls_key: TlsKey = None,
    listen_fd: Annotated[int | None, typer.Option(help="An inherited listening socket.", hidden=True)] = None,
    supervisor: SupervisorPid = None,
) -> None:
    """Run the API process alone (many per cluster)."""
    with uncollected():
        from server.api.app import create_app
        from server.api.process import run_api
        from server.tracing.start import start_tracing

    _start_process("api", supervisor)
    settings = read_settings(config, data_dir, host=host, tls_cert=tls_cert, tls_key=tls_key)
    configure_logging("api", log_format=settings.log.format)
    start_tracing("api")

    def open_app() -> "FastAPI":
        if listen_fd is None:
            _check(settings)
            _print_first_key(settings)
        with uncollected():
            return create_app(settings)

    run_api(settings, open_app, None if listen_fd is None else socket.socket(fileno=listen_fd))


def worker(
    *,
    config: Config = DEMO_CONFIG,
    data_dir: DataDir = None,
    supervisor: SupervisorPid = None,
    worker_id: Annotated[str | None, typer.Option(help="Of this replica (worker_id).", hidden=True)] = None,
) -> None:
    """Run a worker process with its generator (one per GPU, or generator.replicas of them)."""
    role = f"worker {worker_id}" if worker_id else "worker"
    _start_process(role, supervisor)
    settings = read_settings(config, data_dir, worker_id=worker_id)
    configure_logging(role, log_format=settings.log.format)
    if supervisor is None and settings.generator.replicas > 1:
        _run_workers(settings, _child_arguments(config, data_dir))
        return

    with uncollected():
        from server.generator.parent import Generator
        from server.worker.worker_lock import lock_worker_id

    lock = None if supervisor is not None else lock_worker_id(settings, settings.worker_id)
    generator = Generator(settings)
    generator.start()  # before all else: it takes longer to start than the rest of the server together

    with uncollected():
        from server.db.outage import ride_out
        from server.tracing.start import start_tracing
        from server.worker.process import run_worker

    start_tracing(role)
    ride_out(_check, settings)
    with lock or nullcontext():
        run_worker(settings, generator, supervised=supervisor is not None)


def _run_workers(settings: Settings, arguments: list[str]) -> None:
    """All workers of this machine, each a process."""
    from server.db.outage import ride_out
    from server.serve.supervisor import WorkerGroup

    ride_out(_check, settings)
    with WorkerGroup(settings, arguments) as workers:
        workers.run_until_signal()


def _start_process(role: str, supervisor: int | None) -> None:
    from server.parent_death import die_with_parent

    if supervisor is not None:
        die_with_parent(supervisor)
    configure_logging(role)


def _check_storage(settings: Settings) -> None:
    """A wrong bucket or key is found now, and not when the first video is to be stored."""
    from server.storage.open import open_storage

    open_storage(settings).check()


def _check(settings: Settings) -> None:
    """Processes that are started one by one need a migrated database; `serve` has done that for its own."""
    from server.db import migrations
    from server.db.connection import create_engine

    database = create_engine(settings.database_url)
    migrations.check(database)
    database.dispose()
    _check_storage(settings)


def _child_arguments(config: Path, data_dir: Path | None) -> list[str]:
    """The options that lead a child process to the same settings; its socket is inherited."""
    return ["--config", str(config), *(["--data-dir", str(data_dir)] if data_dir else [])]


def _self_signed(settings: Settings) -> "TlsFiles":
    """A certificate for every name under which this server may be called."""
    from server.serve.tls import self_signed

    public = urlsplit(settings.api.public_base_url or "").hostname
    names = [name for name in (settings.api.host, public) if name and name not in {"0.0.0.0", "::"}]  # noqa: S104
    return self_signed(settings.data_dir / "tls", names, datetime.datetime.now(datetime.UTC))


def _print_first_key(settings: Settings) -> None:
    """A server that others can reach needs keys: if it has none yet, one is made and shown this once."""
    from server.api.access.key_table import first_key
    from server.db.connection import create_engine

    made = first_key(create_engine(settings.database_url)) if is_reached_from_elsewhere(settings.api) else None
    if made is not None:
        typer.echo(f"First key, shown this once, for the playground and as FAL_KEY: {made}")
