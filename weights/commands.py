"""`hunyuan-custom weights ...` and `bench convert`: from Tencent's files to a folder the server loads.

Importing this module loads neither torch nor the hub's client; each command imports what it needs.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from weights.errors import one_line
from weights.originals.layout import Variant
from weights.progress_bar import ProgressBar
from weights.reporter import Reporter

app = typer.Typer(help="Download, convert and verify the model's weights.", no_args_is_help=True)

ORIGINALS = Path("models/original")
CONVERTED = Path("models")

VariantChoice = Annotated[Variant | None, typer.Option(help="Precision; by default bf16 if it is there, else fp8.")]
Accept = Annotated[
    bool,
    typer.Option("--accept-licence", envvar="ACCEPT_LICENCE", help="Accept the licence without being asked."),
]
Originals = Annotated[Path, typer.Option(help="Folder for the files as published.")]


@app.command("convert", epilog="Examples:\n\nhunyuan-custom weights convert models/original models/bf16")
def convert_command(
    original_dir: Annotated[Path, typer.Argument(help="Folder laid out as Tencent publishes it.")],
    out_dir: Annotated[Path, typer.Argument(help="Folder to make; an older conversion in it is replaced.")],
    variant: VariantChoice = None,
) -> None:
    """Convert the original checkpoint into a folder HunyuanCustomPipeline.from_pretrained loads."""
    with ProgressBar(in_bytes=True) as bar:
        from weights.convert import convert

        reporter = _reporter(bar)
        made = convert(original_dir, out_dir, variant=variant, reporter=reporter)
        reporter.say(
            f"{made.target}: {made.variant}, {made.nbytes / 1e9:.2f} GB; "
            f"{made.original_keys} tensors of the transformer became {made.produced_keys}"
        )


@app.command("download", epilog="Examples:\n\nhunyuan-custom weights download --variant fp8 --accept-licence")
def download_command(
    variant: Annotated[Variant, typer.Option(help="Precision to download.")] = Variant.BF16,
    originals: Originals = ORIGINALS,
    accept_licence: Accept = False,
) -> None:
    """Download the published files, resuming where an earlier run ended."""
    with ProgressBar(in_bytes=True) as bar:
        from weights.hub.download import download
        from weights.hub.manifest import read_manifest

        reporter = _reporter(bar)
        fetched = download(read_manifest(), variant, originals, ask=_asker(accept_licence), reporter=reporter)
        reporter.say(f"{originals}: complete, {fetched} files fetched")


@app.command("prepare", epilog="Examples:\n\nhunyuan-custom weights prepare --accept-licence")
def prepare_command(
    variant: Annotated[Variant, typer.Option(help="Precision to prepare.")] = Variant.BF16,
    originals: Originals = ORIGINALS,
    out: Annotated[Path | None, typer.Option(help="Folder to make; by default models/<variant>.")] = None,
    accept_licence: Accept = False,
    companions: Annotated[
        bool, typer.Option(help="Also fetch the safety classifier and the segmenter, into folders beside the model.")
    ] = True,
) -> None:
    """Download, convert and verify; does nothing when the model is ready."""
    with ProgressBar(in_bytes=True) as bar:
        from weights.hub.manifest import read_manifest
        from weights.prepare import prepare, prepare_companions

        manifest, target, reporter = read_manifest(), out or CONVERTED / variant, _reporter(bar)
        prepare(manifest, variant, originals=originals, target=target, ask=_asker(accept_licence), reporter=reporter)
        if companions:
            prepare_companions(manifest, target.parent, reporter=reporter)


@app.command("verify", epilog="Examples:\n\nhunyuan-custom weights verify models/bf16 --json")
def verify_command(
    folder: Annotated[Path, typer.Argument(help="A converted model, or originals.")],
    variant: VariantChoice = None,
    quick: Annotated[bool, typer.Option("--quick", help="Sizes and structure only; do not read every byte.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object on stdout, for programs.")] = False,
) -> None:
    """Compare files with the manifest, the lock file and the model; name everything that is wrong."""
    with ProgressBar(in_bytes=True) as bar:
        from weights.checks.verify import verify

        reporter = _reporter(bar, to_stdout=not as_json)
        faults = [one_line(fault) for fault in verify(folder, variant=variant, contents=not quick, reporter=reporter)]
    if as_json:
        typer.echo(json.dumps({"folder": str(folder), "sound": not faults, "faults": faults}, indent=2))
    for fault in faults:
        typer.echo(fault, err=True)
    if faults:
        raise typer.Exit(1)
    if not as_json:
        typer.echo(one_line(f"{folder}: sound"))


@app.command("keys", epilog="Examples:\n\nhunyuan-custom weights keys")
def keys_command() -> None:
    """Count how the full-size model's keys are mapped; needs neither weights nor memory for them."""
    from weights.checks.key_coverage import full_size_coverage, table

    for line in table(full_size_coverage()):
        typer.echo(line)


def bench_convert_command(
    directory: Annotated[Path, typer.Option(help="Where to measure; 52 GB must be free.")] = Path(),
) -> None:
    """Convert a synthetic full-size checkpoint and compare with copying it; takes minutes, leaves nothing behind."""
    with ProgressBar() as bar:
        from weights.checks.convert_benchmark import bench_convert

        measured = bench_convert(directory, say=bar.show)
    for line in measured.lines():
        typer.echo(line)
    if not measured.within_bounds:
        raise typer.Exit(1)


def _asker(accepted: bool) -> Callable[[str], bool]:
    def ask(notice: str) -> bool:
        typer.echo(notice)
        if accepted:
            return True
        if not sys.stdin.isatty():
            typer.echo("Not a terminal: pass --accept-licence, or set ACCEPT_LICENCE=yes, to accept.", err=True)
            return False
        return typer.confirm("Accept?")

    return ask


def _reporter(bar: ProgressBar, *, to_stdout: bool = True) -> Reporter:
    """What feeds the bar, and prints messages."""
    return Reporter(say=lambda line: bar.say(one_line(line), err=not to_stdout), start=bar.begin, progress=bar.advance)
