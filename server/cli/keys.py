"""`hunyuan-custom keys ...`: they work on the database, beside a running server."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from server.cli.options import DEMO_CONFIG, AsJson, Config, DataDir, examples, migrated_database, read_settings
from server.cli.output import print_json, print_rows, time_of

if TYPE_CHECKING:
    from server.api.access.key_table import KeyTable

keys = typer.Typer(help="Keys: who may use the server.", no_args_is_help=True)


@keys.command("create", epilog=examples("hunyuan-custom keys create alice --name laptop"))
def create_key(
    owner: Annotated[str, typer.Argument(help="Requests and uploads belong to owners; an owner has many keys.")],
    name: Annotated[str, typer.Option(help="To tell an owner's keys apart.")] = "",
    config: Config = DEMO_CONFIG,
    data_dir: DataDir = None,
) -> None:
    """Make a key and print it, this once: FAL_KEY for fal's clients."""
    typer.echo(_table(config, data_dir).create(owner, name))


@keys.command("list", epilog=examples("hunyuan-custom keys list --json"))
def list_keys(config: Config = DEMO_CONFIG, data_dir: DataDir = None, as_json: AsJson = False) -> None:
    """Every key: id, owner, name, and whether it works."""
    found = _table(config, data_dir).all()
    if as_json:
        print_json([asdict(key) for key in found])
        return
    ends = ["active" if key.revoked_at is None else f"ends {time_of(key.revoked_at)}" for key in found]
    rows = [(key.id, key.owner, key.name, time_of(key.created_at), end) for key, end in zip(found, ends, strict=True)]
    print_rows(("key", "owner", "name", "created", "state"), rows)


@keys.command("revoke", epilog=examples("hunyuan-custom keys revoke 9c1e..."))
def revoke_key(key_id: str, config: Config = DEMO_CONFIG, data_dir: DataDir = None) -> None:
    """End a key; the API knows within two seconds."""
    _table(config, data_dir).revoke(key_id)
    typer.echo(f"{key_id} revoked")


@keys.command("rotate", epilog=examples("hunyuan-custom keys rotate 9c1e... --grace-minutes 60"))
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

    return KeyTable(migrated_database(read_settings(config, data_dir)))
