"""`hunyuan-custom bench ...` and `doctor`: what this machine can do, measured on it."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from pipeline.options import BUNDLED_CLASSIFIER, MEMORY_PLAN, MemoryPlan
from server.cli.failure import FAILED
from server.cli.options import examples
from server.fal.schemas import EXAMPLE_PROMPT
from server.logs import configure_logging
from weights.commands import bench_convert_command
from weights.progress_bar import ProgressBar


def register(app: typer.Typer) -> None:
    """Add the commands of this file."""
    bench = typer.Typer(help="Measurements on this machine.", no_args_is_help=True)
    for name, command, example in (
        ("api", bench_api, "--seconds 10"),
        ("faults", bench_faults, "--jobs 50 --no-outages"),
        ("idle", bench_idle, "--seconds 60"),
        ("cluster", bench_cluster, "--rounds 1"),
        ("sizing", bench_sizing, "--workers 200 --plot sizing.svg"),
        ("kept", bench_kept, "--requests 10000"),
        ("convert", bench_convert_command, "--directory /scratch"),
        ("load", bench_load, "models/bf16 --device cuda"),
        ("words", bench_words, "models/bf16 woman.jpg --device cuda"),
        ("model", bench_model, "models/bf16 --size 512p --stages step,decode --json rows.json"),
        ("safety", bench_safety, "--pictures ~/Pictures"),
    ):
        bench.command(name, epilog=examples(f"hunyuan-custom bench {name} {example}"))(command)
    app.add_typer(bench, name="bench")


def bench_api(
    seconds: Annotated[float, typer.Option(help="Length of the submit phase; the others are shorter.")] = 60.0,
) -> None:
    """Measure the load that the API can take on this machine: submits, polls, streams, downloads, a deep queue."""
    from server.bench.api import bench_api as run

    configure_logging("bench", logging.WARNING)
    with _at_work("bench api"):
        met = run(seconds=seconds)
    if not met:
        raise typer.Exit(FAILED)


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
    with _at_work("bench faults"):
        met = run(Plan(jobs=jobs, rounds=rounds, cancels=cancels, outages=outages))
    if not met:
        raise typer.Exit(FAILED)


def bench_idle(
    *,
    seconds: Annotated[float, typer.Option(min=0, help="Of doing nothing, on each kind of database.")] = 300.0,
    reactions: Annotated[int, typer.Option(min=0, help="Submits and cancels after a quiet spell.")] = 100,
) -> None:
    """Measure the CPU time of a server that has nothing to do, and how soon it reacts after a quiet spell."""
    from server.bench.idle import bench_idle as run

    configure_logging("bench", logging.WARNING)
    with _at_work("bench idle"):
        met = run(seconds=seconds, reactions=reactions)
    if not met:
        raise typer.Exit(FAILED)


def bench_cluster(
    *,
    rounds: Annotated[int, typer.Option(min=1, help="Of each measurement.")] = 3,
    seconds: Annotated[float, typer.Option(min=0.1, help="Length of a round of submits or of status calls.")] = 3.0,
) -> None:
    """Compare SQLite and PostgreSQL in one run: submits and status calls a second, and a dead worker's takeover."""
    from server.bench.cluster import bench_cluster as run

    configure_logging("bench", logging.CRITICAL)  # that workers die is no news here
    with _at_work("bench cluster"):
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
    with _at_work("bench sizing"):
        run(workers=workers, render_s=render_s, plot=plot)


def bench_kept(
    requests: Annotated[int, typer.Option(min=1, help="Finished requests that are kept.")] = 100_000,
) -> None:
    """Measure what reads cost with many requests kept: the operator's overview, metrics, a page of history."""
    from server.bench.kept import bench_kept as run

    configure_logging("bench", logging.WARNING)
    with _at_work("bench kept"):
        run(requests=requests)


def bench_load(
    folder: Annotated[Path, typer.Argument(help="A converted model.")],
    device: Annotated[str, typer.Option(help="Where to load it (generator.device).")] = "cpu",
    memory_plan: Annotated[MemoryPlan, typer.Option(help="What stays there (generator.memory_plan).")] = MEMORY_PLAN,
    cached: Annotated[
        bool, typer.Option("--cached", help="With the files in the page cache, not on the disk.")
    ] = False,
) -> None:
    """Measure how long a model takes to load, and how much memory of its own the process needs for it."""
    from pipeline.checks.load_time import bench_load as run

    with _at_work(f"loading {folder}"):
        measured = run(folder, device=device, memory_plan=memory_plan, cached=cached)
    for line in measured.lines():
        typer.echo(line)


def bench_words(
    folder: Annotated[Path, typer.Argument(help="A converted model.")],
    image: Annotated[Path, typer.Argument(exists=True, help="An identity image.")],
    prompt: Annotated[str, typer.Option(help="To be expanded.")] = EXAMPLE_PROMPT,
    device: Annotated[str, typer.Option(help="Where to load it (generator.device).")] = "cpu",
    memory_plan: Annotated[MemoryPlan, typer.Option(help="What stays there (generator.memory_plan).")] = MEMORY_PLAN,
) -> None:
    """Show what LLaVA makes of a prompt and a picture, and measure how long that takes."""
    from pipeline.checks.words_time import bench_words as run

    with _at_work(f"loading {folder}, then writing"):
        measured = run(folder, image, prompt, device=device, memory_plan=memory_plan)
    for line in measured.lines():
        typer.echo(line)


def bench_model(
    *,
    folder: Annotated[
        Path | None, typer.Argument(help="A converted model; without one, random weights made on the device.")
    ] = None,
    device: Annotated[str | None, typer.Option(help="A torch device; by default the GPU, or else the CPU.")] = None,
    small: Annotated[
        bool | None,
        typer.Option("--small/--full-size", help="Width 768, or the 13B model; by default small on a CPU."),
    ] = None,
    size: Annotated[str | None, typer.Option(help="512p, 720p or HEIGHTxWIDTH, with commas between several.")] = None,
    frames: Annotated[str | None, typer.Option(help="Numbers of frames (4n+1), with commas.")] = None,
    text_rows: Annotated[str, typer.Option(help="Rows of text of the negative and of the positive prompt.")] = "50,625",
    stages: Annotated[
        str | None, typer.Option(help="Of ceilings, step, shares, options, decode, encode, reuse, with commas.")
    ] = None,
    repeats: Annotated[
        int | None,
        typer.Option(min=1, help="After a first run; the fastest counts. Else 1 on a GPU, 3 on a CPU."),
    ] = None,
    steps: Annotated[int, typer.Option(min=1, help="Of each denoising in the stage `reuse`.")] = 30,
    threads: Annotated[int, typer.Option(min=0, help="Of torch on the CPU; 0 leaves it to torch.")] = 1,
    limit_s: Annotated[float, typer.Option(min=0, help="What would begin later is left out.")] = 600.0,
    json_file: Annotated[Path | None, typer.Option("--json", help="Also write the rows to this file.")] = None,
    plot_file: Annotated[Path | None, typer.Option("--plot", help="Also draw step time against tokens (SVG).")] = None,
) -> None:
    """Measure the model on this machine, stage by stage, beside what the device can do and beside diffusers' class."""
    import torch

    from pipeline.checks.bench.plan import bench_plan
    from pipeline.checks.bench.run import bench_model as run
    from pipeline.checks.bench.table import as_lines

    if threads:
        torch.set_num_threads(threads)
    try:
        plan = bench_plan(
            device=device,
            small=small,
            sizes=size,
            frames=frames,
            text_rows=text_rows,
            stages=stages,
            folder=folder,
            repeats=repeats,
            steps=steps,
            limit_s=limit_s,
        )
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None
    with _at_work("bench model") as bar:
        measured = run(plan, say=lambda row: bar.say(as_lines([row])[1]), json_file=json_file)
        for line in as_lines(measured.rows):
            typer.echo(line)
        if plot_file is not None:
            plot_file.write_text(measured.plot())


def bench_safety(
    model: Annotated[str, typer.Option(help="The classifier (safety.model).")] = BUNDLED_CLASSIFIER,
    device: Annotated[str, typer.Option(help="Where it runs (generator.device).")] = "cpu",
    pictures: Annotated[
        Path | None, typer.Option(help="Folder of harmless pictures; by default those in installed packages.")
    ] = None,
) -> None:
    """Count what the safety checker refuses by mistake and misses, and measure what it costs per clip."""
    from server.bench.safety import bench_safety as run

    with _at_work("bench safety") as bar:
        run(model=model, device=device, pictures=pictures, say=lambda line: bar.say(line, err=False))


@contextmanager
def _at_work(what: str) -> Iterator[ProgressBar]:
    """On a terminal: what goes on and for how long."""
    with ProgressBar() as bar:
        bar.show(what)
        yield bar
