"""The `hunyuan-custom` command."""

import sys
from typing import Annotated

import typer

from server.cli import bench, doctor, health, maintenance, processes
from server.cli.keys import keys
from server.cli.webhooks import webhooks
from server.errors import SettingsError
from server.version import VERSION
from weights.commands import app as weights

app = typer.Typer(
    help="Self-hosted, drop-in replacement of fal's fal-ai/hunyuan-custom endpoint.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
processes.register(app)
maintenance.register(app)
health.register(app)
bench.register(app)
doctor.register(app)
app.add_typer(keys, name="keys")
app.add_typer(webhooks, name="webhooks")
app.add_typer(weights, name="weights")


def _print_version(asked: bool) -> None:
    if asked:
        typer.echo(VERSION)
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Options before the command."""


def main() -> None:
    """Entry point: a wrong setting is one line on stderr and exit code 2."""
    try:
        app()
    except SettingsError as error:
        typer.echo(f"error: {error}", err=True)
        sys.exit(2)
