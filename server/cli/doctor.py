"""`hunyuan-custom doctor`: what is wrong with this machine or deployment, one line each, with the remedy."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from server.cli.failure import FAILED
from server.cli.options import DEMO_CONFIG, Config, DataDir, examples, read_settings
from server.cli.output import print_json
from server.settings import Settings
from weights.progress_bar import ProgressBar

if TYPE_CHECKING:
    from server.doctor.finding import Finding
    from server.doctor.machine import Card
    from server.doctor.memory import MemoryTable

Memory = Annotated[str | None, typer.Option(help="Ask about another machine: 80GB, 81559MiB.")]


def register(app: typer.Typer) -> None:
    """Add the command of this file."""
    app.command(
        epilog=examples(
            "hunyuan-custom doctor --config configs/gpu-80gb.toml", "hunyuan-custom doctor --gpu-memory 24GB --json"
        )
    )(doctor)


def doctor(
    *,
    config: Config = DEMO_CONFIG,
    data_dir: DataDir = None,
    gpu_memory: Memory = None,
    host_memory: Memory = None,
    as_json: Annotated[bool, typer.Option("--json", help="Findings and memory as one JSON object.")] = False,
    full_size: Annotated[
        bool, typer.Option("--full-size", help="Instead: run a forward of the 13B transformer with synthetic weights.")
    ] = False,
    directory: Annotated[
        Path, typer.Option(help="Folder for 26 GB of synthetic weights, removed afterwards.")
    ] = Path(),
) -> None:
    """Check GPU, driver, torch, memory, weights, disk, database and port; exit code 1 if something blocks."""
    if full_size:
        _run_full_size(directory)
        return
    from server.doctor.machine import cards

    settings = read_settings(config, data_dir)
    found = cards()
    table = _memory(settings, found, gpu_memory, host_memory)
    findings = list(_look(settings, found, table))
    blocked = any(finding.state == "problem" for finding in findings)
    if as_json:
        report: dict[str, Any] = {"ok": not blocked, "findings": [finding.as_dict() for finding in findings]}
        print_json(report | ({"memory": table.as_dict()} if table else {}))
    else:
        for finding in findings:
            typer.echo(finding.line())
        for line in ["", *table.lines()] if table else []:
            typer.echo(line)
    if blocked:
        raise typer.Exit(FAILED)


def _look(settings: Settings, found: list["Card"], table: "MemoryTable | None") -> Iterator["Finding"]:
    from server.doctor import deployment, machine

    generator = settings.generator
    yield from machine.check_gpu(generator.device, found, ranks=generator.ranks, replicas=generator.replicas)
    yield machine.check_torch(generator.device)
    yield from machine.check_kernels(generator.device)
    if table is not None:
        yield table.finding(generator)
    yield deployment.check_weights(settings)
    yield from deployment.check_companions(settings)
    yield machine.check_encoder()
    yield deployment.check_data_dir(settings)
    yield deployment.check_database(settings)
    yield from deployment.check_storage(settings)
    yield deployment.check_port(settings)
    yield deployment.check_access(settings)


def _memory(settings: Settings, found: list["Card"], gpu: str | None, host: str | None) -> "MemoryTable | None":
    """None where nothing is to be placed: on a CPU, unless another machine is asked about."""
    from pipeline.memory.planner import Engine
    from server.doctor.deployment import is_running
    from server.doctor.memory import MemoryTable, parse_memory, sizes_of
    from weights.disk import available_memory

    processes = settings.generator.ranks * settings.generator.replicas
    here = found[:processes] if settings.generator.device.startswith("cuda") else []
    if gpu is None and not here:
        return None
    running = is_running(settings)  # then its own memory is among what is taken
    return MemoryTable(
        model=sizes_of(settings.generator),
        gpu=parse_memory(gpu, option="--gpu-memory")
        if gpu
        else min(card.memory if running else card.free for card in here),
        host=parse_memory(host, option="--host-memory") if host else available_memory() // processes,
        asked=gpu is not None,
        engine=Engine(step_cache=settings.generator.step_cache_or_none),
    )


def _run_full_size(directory: Path) -> None:
    from pipeline.checks.full_size import full_size_check

    with ProgressBar() as bar:
        check = full_size_check(directory, say=bar.show)
    for line in check.lines():
        typer.echo(line)
    if not check.passed:
        raise typer.Exit(FAILED)
