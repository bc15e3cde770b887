"""Commands of the operator: keys, usage, webhooks, backup. They work on the database, beside a running server."""

import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from server.errors import RequestError, SettingsError
from server.settings import CONFIGS, Settings, load_settings

if TYPE_CHECKING:
    import sqlalchemy as sa

Config = Annotated[Path, typer.Option(help="TOML file with the settings of this deployment.")]
DataDir = Annotated[Path | None, typer.Option(help="Where database and files live (data_dir).")]
_DEMO_CONFIG = CONFIGS / "demo.toml"

keys = typer.Typer(help="Who may use the server.", no_args_is_help=True)
webhooks = typer.Typer(help="Deliveries to fal_webhook.", no_args_is_help=True)


@keys.command("create")
def create_key(
    owner: Annotated[str, typer.Argument(help="Requests and uploads belong to owners; an owner has many keys.")],
    name: Annotated[str, typer.Option(help="To tell an owner's keys apart.")] = "",
    config: Config = _DEMO_CONFIG,
    data_dir: DataDir = None,
) -> None:
    """Make a key and print it, this once: FAL_KEY for fal's clients."""
    from server.api.key_table import KeyTable

    typer.echo(KeyTable(_database(config, data_dir)).create(owner, name))


@keys.command("list")
def list_keys(config: Config = _DEMO_CONFIG, data_dir: DataDir = None) -> None:
    """Every key: id, owner, name, and whether it works."""
    from server.api.key_table import KeyTable

    for key in KeyTable(_database(config, data_dir)).all():
        state = "active" if key.revoked_at is None else f"ends {_time(key.revoked_at)}"
        typer.echo(f"{key.id}  {key.owner}  {key.name or '-'}  created {_time(key.created_at)}  {state}")


@keys.command("revoke")
def revoke_key(key_id: str, config: Config = _DEMO_CONFIG, data_dir: DataDir = None) -> None:
    """End a key; the API knows within two seconds."""
    from server.api.key_table import KeyTable

    KeyTable(_database(config, data_dir)).revoke(key_id)
    typer.echo(f"{key_id} revoked")


@keys.command("rotate")
def rotate_key(
    key_id: str,
    grace_minutes: Annotated[float, typer.Option(help="How long the old key still works.")] = 0.0,
    config: Config = _DEMO_CONFIG,
    data_dir: DataDir = None,
) -> None:
    """Replace a key by a new one of the same owner, and print that."""
    from server.api.key_table import KeyTable

    typer.echo(KeyTable(_database(config, data_dir)).rotate(key_id, grace_s=grace_minutes * 60))


@webhooks.command("list")
def list_webhooks(
    state: Annotated[str | None, typer.Option(help="pending, delivered or failed")] = None,
    config: Config = _DEMO_CONFIG,
    data_dir: DataDir = None,
) -> None:
    """Deliveries, the latest first."""
    from server.webhooks.outbox import WebhookOutbox

    for one in WebhookOutbox(_database(config, data_dir)).all(state=state):
        typer.echo(f"{one.request_id}  {one.state}  attempts {one.attempts}  {one.outcome or '-'}")


@webhooks.command("redeliver")
def redeliver(request_id: str, config: Config = _DEMO_CONFIG, data_dir: DataDir = None) -> None:
    """Deliver a request's result again, with the whole schedule."""
    from server.webhooks.outbox import WebhookOutbox

    try:
        WebhookOutbox(_database(config, data_dir)).redeliver(request_id)
    except RequestError as error:
        raise SettingsError(str(error)) from error
    typer.echo(f"{request_id} will be delivered again")


def usage(
    csv: Annotated[bool, typer.Option("--csv", help="The only form there is; say it for scripts to come.")] = False,  # noqa: ARG001
    since: Annotated[datetime | None, typer.Option(help="UTC, 2026-01-31 or 2026-01-31T12:00:00.")] = None,
    owner: Annotated[str | None, typer.Option(help="Only this owner.")] = None,
    config: Config = _DEMO_CONFIG,
    data_dir: DataDir = None,
) -> None:
    """Usage records as CSV: owner, request, outcome, GPU-seconds, frames, resolution."""
    from server.jobs.usage import write_csv

    write_csv(_database(config, data_dir), sys.stdout, since=since, owner=owner)


def backup(
    target: Path,
    videos: Annotated[bool, typer.Option("--videos", help="Finished videos as well.")] = False,
    config: Config = _DEMO_CONFIG,
    data_dir: DataDir = None,
) -> None:
    """Write database, keys, signing keys and images into one file, while the server runs."""
    from server.serve.backup import back_up

    size = back_up(_settings(config, data_dir), target, videos=videos)
    typer.echo(f"{target}: {size} bytes. It holds keys: keep it as safe as the server.")


def restore(source: Path, config: Config = _DEMO_CONFIG, data_dir: DataDir = None) -> None:
    """Unpack a backup into an empty data directory; then start the server."""
    from server.serve.backup import restore as unpack

    unpack(_settings(config, data_dir), source)
    typer.echo(f"restored from {source}")


def register(app: typer.Typer) -> None:
    """Add these commands to the command line."""
    app.add_typer(keys, name="keys")
    app.add_typer(webhooks, name="webhooks")
    for command in (usage, backup, restore):
        app.command()(command)


def _settings(config: Path, data_dir: Path | None) -> Settings:
    return load_settings(config, {"data_dir": data_dir} if data_dir is not None else {})


def _database(config: Path, data_dir: Path | None) -> "sa.Engine":
    """The database of the deployment, created if this is the first command."""
    from server.db.tables import create_engine, migrate

    settings = _settings(config, data_dir)
    migrate(settings.database_url, settings.data_dir / "migrate.lock")
    return create_engine(settings.database_url)


def _time(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="seconds")
