"""`hunyuan-custom bench ...` and `doctor`: what this machine can do, measured on it."""

import logging
from pathlib import Path
from typing import Annotated

import typer

from pipeline.options import MEMORY_PLAN, MemoryPlan
from server.logs import configure_logging
from weights.commands import bench_convert_command, one_line_errors


def register(app: typer.Typer) -> None:
    """Add the commands of this file."""
    bench = typer.Typer(help="Measurements on this machine.", no_args_is_help=True)
    bench.command("api")(bench_api)
    bench.command("faults")(bench_faults)
    bench.command("cluster")(bench_cluster)
    bench.command("sizing")(bench_sizing)
    bench.command("convert")(bench_convert_command)
    bench.command("load")(bench_load)
    app.add_typer(bench, name="bench")
    app.command("doctor")(doctor)


def bench_api(
    seconds: Annotated[float, typer.Option(help="Length of the submit phase; the others are shorter.")] = 60.0,
) -> None:
    """Measure the load that the API can take on this machine: submits, polls, streams, downloads, a deep queue."""
    from server.bench.api import bench_api as run

    configure_logging("bench", logging.WARNING)
    if not run(seconds=seconds):
        raise typer.Exit(1)


def bench_faults(
    *,
    jobs: Annotated[int, typer.Option(min=1, help="Tiny jobs of the chaos phase.")] = 200,
    rounds: Annotated[int, typer.Option(min=1, help="Of each fault.")] = 3,
    cancels: Annotated[int, typer.Option(min=1, help="Cancelled jobs; a p99 needs 100.")] = 100,
    outages: Annotated[bool, typer.Option(help="Also database, object store, a lost machine, checkpoints.")] = True,
) -> None:
    """Measure what each fault costs on this machine, and count what is lost when processes die at random."""
    from server.bench.faults import Plan
    from server.bench.faults import bench_faults as run

    configure_logging("bench", logging.CRITICAL)  # that children die is no news here
    if not run(Plan(jobs=jobs, rounds=rounds, cancels=cancels, outages=outages)):
        raise typer.Exit(1)


def bench_cluster(
    *,
    rounds: Annotated[int, typer.Option(min=1, help="Of each measurement.")] = 3,
    seconds: Annotated[float, typer.Option(min=0.1, help="Length of a round of submits or of status calls.")] = 3.0,
) -> None:
    """Compare SQLite and PostgreSQL in one run: submits and status calls a second, and a dead worker's takeover."""
    from server.bench.cluster import bench_cluster as run

    configure_logging("bench", logging.CRITICAL)  # that workers die is no news here
    run(rounds=rounds, seconds=seconds)


def bench_sizing(
    *,
    workers: Annotated[int, typer.Option(min=1, max=5000, help="Fake workers on one database, at most.")] = 1000,
    render_s: Annotated[float, typer.Option(min=1, help="Seconds that a render takes on a GPU.")] = 460.0,
    plot: Annotated[Path | None, typer.Option(help="An SVG file for how long requests wait.")] = None,
) -> None:
    """Measure what many workers ask of a database on this machine, and compute how long requests wait for a GPU."""
    from server.bench.sizing import bench_sizing as run

    configure_logging("bench", logging.WARNING)
    run(workers=workers, render_s=render_s, plot=plot)


def bench_load(
    folder: Annotated[Path, typer.Argument(help="A converted model.")],
    device: Annotated[str, typer.Option(help="Where to load it (generator.device).")] = "cpu",
    memory_plan: Annotated[MemoryPlan, typer.Option(help="What stays there (generator.memory_plan).")] = MEMORY_PLAN,
) -> None:
    """Measure how long a model takes to load, and how much memory of its own the process needs for it."""
    from pipeline.checks.load_time import bench_load as run

    with one_line_errors():
        measured = run(folder, device=device, memory_plan=memory_plan)
    for line in measured.lines():
        typer.echo(line)


def doctor(
    *,
    full_size: Annotated[
        bool, typer.Option("--full-size", help="Run a forward of the 13B transformer with synthetic weights.")
    ] = False,
    directory: Annotated[
        Path, typer.Option(help="Folder for 26 GB of synthetic weights, removed afterwards.")
    ] = Path(),
) -> None:
    """Check that this machine can hold the model: a full-size forward from disk, without a GPU, in minutes."""
    if not full_size:
        typer.echo("Nothing to check without --full-size.")
        return
    from pipeline.checks.full_size import full_size_check

    with one_line_errors():
        check = full_size_check(directory, say=lambda line: typer.echo(line, err=True))
    for line in check.lines():
        typer.echo(line)
    if not check.passed:
        raise typer.Exit(1)
