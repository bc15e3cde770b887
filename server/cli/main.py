"""The `hunyuan-custom` command."""

import sys
from typing import Annotated

import typer

from server.cli import bench, doctor, generate, health, maintenance, processes, status
from server.cli.failure import of_error
from server.cli.keys import keys
from server.cli.options import examples
from server.cli.requests import requests
from server.cli.webhooks import webhooks
from server.version import VERSION
from weights.commands import app as weights

app = typer.Typer(
    help="Self-hosted, drop-in replacement of fal's fal-ai/hunyuan-custom endpoint.",
    epilog=examples(
        "hunyuan-custom serve",
        'hunyuan-custom generate woman.jpg "A woman is playing a violin."',
        "hunyuan-custom doctor --config configs/gpu-80gb.toml",
    ),
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
processes.register(app)
generate.register(app)
maintenance.register(app)
status.register(app)
health.register(app)
bench.register(app)
doctor.register(app)
app.add_typer(requests, name="requests")
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
    """Entry point: what a user can mend is one line on stderr; `cli/failure.py` has the exit codes."""
    try:
        app(prog_name="hunyuan-custom")
    except Exception as error:
        told = of_error(error)
        if told is None:
            raise
        code, line = told
        typer.echo(f"error: {line}", err=True)
        sys.exit(code)
