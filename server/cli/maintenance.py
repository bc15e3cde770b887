"""Commands for the operator of a deployment: migrate, drain, usage, backup, restore."""

import sys
from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer

from server.cli.options import DEMO_CONFIG, Config, DataDir, examples, migrated_database, read_settings
from server.cli.output import print_json


def register(app: typer.Typer) -> None:
    """Add the commands of this file."""
    for command, example in (
        (migrate, "hunyuan-custom migrate --config configs/cluster.toml"),
        (drain, "hunyuan-custom drain --undo"),
        (usage, "hunyuan-custom usage --since 2026-11-01 --owner alice > alice.csv"),
        (backup, "hunyuan-custom backup /backups/hunyuan-custom.tar --videos"),
        (restore, "hunyuan-custom restore /backups/hunyuan-custom.tar --data-dir /srv/hunyuan-custom"),
    ):
        app.command(epilog=examples(example))(command)


def migrate(config: Config = DEMO_CONFIG, data_dir: DataDir = None) -> None:
    """Create or upgrade the database and exit; `serve` does it by itself."""
    migrated_database(read_settings(config, data_dir)).dispose()


def drain(
    config: Config = DEMO_CONFIG,
    data_dir: DataDir = None,
    undo: Annotated[bool, typer.Option(help="Take jobs again.")] = False,
) -> None:
    """Have all workers finish what they run and take no more jobs; returns when none is running."""
    from server.serve.drain import drain_workers

    drain_workers(read_settings(config, data_dir), undo=undo)
    typer.echo("workers take jobs again" if undo else "drained: no job is running, waiting ones stay in the queue")


def usage(
    *,
    csv: Annotated[bool, typer.Option("--csv", help="The default.")] = False,  # noqa: ARG001
    since: Annotated[datetime | None, typer.Option(help="UTC, 2026-01-31 or 2026-01-31T12:00:00.")] = None,
    owner: Annotated[str | None, typer.Option(help="Only this owner.")] = None,
    config: Config = DEMO_CONFIG,
    data_dir: DataDir = None,
    as_json: Annotated[bool, typer.Option("--json", help="A JSON array instead of CSV.")] = False,
) -> None:
    """Usage records as CSV: owner, request, outcome, GPU-seconds, frames, resolution."""
    from server.jobs.usage import read_usage, write_csv

    database = migrated_database(read_settings(config, data_dir))
    if as_json:
        print_json(list(read_usage(database, since=since, owner=owner)))
    else:
        write_csv(database, sys.stdout, since=since, owner=owner)


def backup(
    target: Path,
    videos: Annotated[bool, typer.Option("--videos", help="Finished videos as well.")] = False,
    config: Config = DEMO_CONFIG,
    data_dir: DataDir = None,
) -> None:
    """Write database, keys, signing keys and images into one file, while the server runs."""
    from server.serve.backup import back_up

    size = back_up(read_settings(config, data_dir), target, videos=videos)
    typer.echo(f"{target}: {size} bytes. It holds keys: keep it as safe as the server.")


def restore(source: Path, config: Config = DEMO_CONFIG, data_dir: DataDir = None) -> None:
    """Unpack a backup into an empty data directory; then start the server."""
    from server.serve.backup import restore as unpack

    unpack(read_settings(config, data_dir), source)
    typer.echo(f"restored from {source}")
