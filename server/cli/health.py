"""`hunyuan-custom health`: are this server, or these workers, well? For health checks of containers and services."""

import http.client
import json
import ssl
import time
from typing import Annotated

import typer

from server.cli.failure import FAILED
from server.cli.options import DEMO_CONFIG, AsJson, Config, DataDir, Key, ServerUrl, examples, read_settings
from server.cli.output import print_json
from server.errors import SettingsError
from server.settings import Settings

_TIMEOUT_S = 3.0
EXAMPLES = examples(
    "hunyuan-custom health --ready",
    "hunyuan-custom health --worker --json",
    "hunyuan-custom health --ready --server https://video.example.com",
)


def register(app: typer.Typer) -> None:
    """Add the command of this file."""
    app.command(epilog=EXAMPLES)(health)


def health(
    *,
    server: ServerUrl = None,
    key: Key = None,
    port: Annotated[int | None, typer.Option(help="Port of the API on this machine (api.port).")] = None,
    config: Config = DEMO_CONFIG,
    data_dir: DataDir = None,
    ready: Annotated[
        bool, typer.Option("--ready", help="Also whether a worker (with --worker: each) has its model loaded.")
    ] = False,
    worker: Annotated[bool, typer.Option("--worker", help="Ask the database about the workers instead.")] = False,
    as_json: AsJson = False,
) -> None:
    """Ask the API whether it answers; exit code 1 and the reason if it does not.

    The one of --config on this machine, or --server anywhere.

    A server with keys tells the reasons for not being --ready to those who show one.
    """
    if [server, port, worker or None].count(None) < 2:
        raise SettingsError("--server, --port and --worker name three things to ask: give one of them")
    question = "ready" if ready else "live"
    if server is not None:
        problem = _server_problem(server, key, question)
    else:
        settings = read_settings(config, data_dir, port=port)
        problem = _worker_problem(settings, ready=ready) if worker else _api_problem(settings, question)
    if as_json:
        print_json({"ok": not problem, "problem": problem or None})
    elif problem:
        typer.echo(problem, err=True)
    if problem:
        raise typer.Exit(FAILED)


def _api_problem(settings: Settings, question: str) -> str:
    """What is wrong with the API, by its own answer to one GET; empty if nothing is."""
    api = settings.api
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(api.host, api.host)  # noqa: S104 - compared, not bound
    connection = (
        # The certificate is made for the names that clients use; this is the same machine.
        http.client.HTTPSConnection(host, api.port, timeout=_TIMEOUT_S, context=ssl._create_unverified_context())  # noqa: S323
        if api.tls_cert
        else http.client.HTTPConnection(host, api.port, timeout=_TIMEOUT_S)
    )
    try:
        connection.request("GET", f"/health/{question}")
        answer = connection.getresponse()
        said = answer.read(2000).decode(errors="replace")
    except (OSError, http.client.HTTPException) as error:
        return f"the API on {host}:{api.port} does not answer: {error}"
    finally:
        connection.close()
    return "" if answer.status == http.client.OK else f"{answer.status} {said}"


def _server_problem(url: str, key: str | None, question: str) -> str:
    """The same of a server anywhere, whose certificate has to be good."""
    from server.generate.outcome import RequestFailed
    from server.generate.server_calls import ServerAway, ServerCalls

    with ServerCalls(url, key) as calls:
        try:
            calls.ask("GET", f"/health/{question}", expected="status", timeout=_TIMEOUT_S)
        except ServerAway as error:
            return str(error)
        except RequestFailed as error:
            response = error.response()
            return f"{response.status} {json.dumps(response.body)}"
    return ""


def _worker_problem(settings: Settings, *, ready: bool) -> str:
    """What is wrong with a worker of these settings, by its row in the database; empty if nothing is."""
    import sqlalchemy as sa

    from server.db.connection import create_engine, sqlite_file
    from server.db.outage import one_line
    from server.generator.state import TAKES_JOBS
    from server.jobs.worker_registry import WorkerRegistry
    from server.serve.replicas import worker_ids

    file = sqlite_file(settings.database_url)
    if file is not None and not file.exists():  # asking would make one
        return f"there is no database at {file}"
    database = create_engine(settings.database_url)
    try:
        known = {worker.id: worker for worker in WorkerRegistry(database).all()}
    except sa.exc.SQLAlchemyError as error:
        return f"the database does not answer: {one_line(error)}"
    finally:
        database.dispose()
    for name in worker_ids(settings):
        if name not in known:
            return f"no worker {name} has registered"
        silent_s = time.time() - known[name].heartbeat_at
        if silent_s > settings.jobs.heartbeat_stale_s:
            return f"worker {name} was last heard of {silent_s:.0f} s ago"
        if ready and known[name].state not in TAKES_JOBS:
            return f"worker {name} is {known[name].state}: {known[name].detail}"
    return ""
