"""`hunyuan-custom requests ...`: the requests of all owners, in the database of the deployment or on a server."""

import json
from typing import Annotated

import typer

from server.cli.options import DEMO_CONFIG, AsJson, Config, DataDir, Key, ServerUrl, examples
from server.cli.output import one_line, print_json, print_rows, time_of
from server.cli.request_sources import Fields, open_requests
from server.jobs.request_state import LONGEST_LIST, State
from weights.progress_bar import duration

requests = typer.Typer(help="List, show and cancel requests.", no_args_is_help=True)

RequestId = Annotated[str, typer.Argument(help="As `requests list` shows it.")]
_ERROR = 60  # characters of an error in a list


@requests.command(
    "list",
    epilog=examples(
        "hunyuan-custom requests list --status failed --limit 5",
        "hunyuan-custom requests list --owner alice --json",
        "hunyuan-custom requests list --server https://video.example.com --key $FAL_KEY",
    ),
)
def list_command(
    *,
    owner: Annotated[str | None, typer.Option(help="Only this owner's.")] = None,
    status: Annotated[State | None, typer.Option(help="Only those in this state.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=LONGEST_LIST, help="Of the newest ones.")] = 20,
    server: ServerUrl = None,
    key: Key = None,
    config: Config = DEMO_CONFIG,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """The newest requests first: id, owner, state, times, attempts and error.

    From the database of the deployment, or from a server that --key is an operator's key of.
    """
    with open_requests(server, key, config, data_dir) as source:
        found = source.newest(owner=owner, state=status, limit=limit)
    if as_json:
        print_json(found)
        return
    head = ("request", "owner", "state", "created", "waited", "ran", "attempts", "error")
    print_rows(head, [_row(one) for one in found])


@requests.command(
    "show",
    epilog=examples(
        "hunyuan-custom requests show 1f6a... --json",
        "hunyuan-custom requests show 1f6a... --server https://video.example.com --key $FAL_KEY",
    ),
)
def show(
    request_id: RequestId,
    *,
    server: ServerUrl = None,
    key: Key = None,
    config: Config = DEMO_CONFIG,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """One request: its input, state, times, attempts, error and log."""
    with open_requests(server, key, config, data_dir) as source:
        shown = source.one(request_id)
    if as_json:
        print_json(shown)
        return
    for name, value in shown.items():
        if name == "log":
            for line in value:
                typer.echo(f"{time_of(line['at'])}  {line['level']:<5} {one_line(line['message'])}")
        elif value is not None:
            text = time_of(value) if name.endswith("_at") else duration(value) if name == "inference_time" else value
            words = text if isinstance(text, str) else json.dumps(text, ensure_ascii=False)
            typer.echo(f"{name:<15} {one_line(words)}")


@requests.command("cancel", epilog=examples("hunyuan-custom requests cancel 1f6a..."))
def cancel(
    request_id: RequestId,
    *,
    server: ServerUrl = None,
    key: Key = None,
    config: Config = DEMO_CONFIG,
    data_dir: DataDir = None,
) -> None:
    """Stop a request as its owner could: a waiting one is over at once, a running one soon."""
    with open_requests(server, key, config, data_dir) as source:
        source.cancel(request_id)
        is_over = source.one(request_id)["state"] == State.CANCELLED
    typer.echo(f"{request_id} {'is cancelled' if is_over else 'will be stopped by its worker'}")


def _row(one: Fields) -> list[object]:
    error = (one["error"] or "").splitlines()[:1]
    failed = f"{one['error_type']}: {error[0] if error else ''}"[:_ERROR] if one["error_type"] else None
    created, started, finished = one["created_at"], one["started_at"], one["finished_at"]
    waited = None if started is None else duration(started - created)
    ran = None if started is None or finished is None else duration(finished - started)
    return [one["request_id"], one["owner"], one["state"], time_of(created), waited, ran, one["attempts"], failed]
