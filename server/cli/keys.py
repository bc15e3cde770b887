"""`hunyuan-custom keys ...`: they work on the database, beside a running server."""

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from server.cli.options import DEMO_CONFIG, Config, DataDir, migrated_database

if TYPE_CHECKING:
    from server.api.access.key_table import KeyTable

keys = typer.Typer(help="Keys: who may use the server.", no_args_is_help=True)


@keys.command("create")
def create_key(
    owner: Annotated[str, typer.Argument(help="Requests and uploads belong to owners; an owner has many keys.")],
    name: Annotated[str, typer.Option(help="To tell an owner's keys apart.")] = "",
    config: Config = DEMO_CONFIG,
    data_dir: DataDir = None,
) -> None:
    """Make a key and print it, this once: FAL_KEY for fal's clients."""
    typer.echo(_table(config, data_dir).create(owner, name))


@keys.command("list")
def list_keys(config: Config = DEMO_CONFIG, data_dir: DataDir = None) -> None:
    """Every key: id, owner, name, and whether it works."""
    for key in _table(config, data_dir).all():
        state = "active" if key.revoked_at is None else f"ends {_time(key.revoked_at)}"
        typer.echo(f"{key.id}  {key.owner}  {key.name or '-'}  created {_time(key.created_at)}  {state}")


@keys.command("revoke")
def revoke_key(key_id: str, config: Config = DEMO_CONFIG, data_dir: DataDir = None) -> None:
    """End a key; the API knows within two seconds."""
    _table(config, data_dir).revoke(key_id)
    typer.echo(f"{key_id} revoked")


@keys.command("rotate")
def rotate_key(
    key_id: str,
    grace_minutes: Annotated[float, typer.Option(help="How long the old key still works.")] = 0.0,
    config: Config = DEMO_CONFIG,
    data_dir: DataDir = None,
) -> None:
    """Replace a key by a new one of the same owner, and print that."""
    typer.echo(_table(config, data_dir).rotate(key_id, grace_s=grace_minutes * 60))


def _table(config: Path, data_dir: Path | None) -> "KeyTable":
    from server.api.access.key_table import KeyTable

    return KeyTable(migrated_database(config, data_dir))


def _time(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="seconds")
