"""`hunyuan-custom requests ...`: the requests of all owners, in the database of the deployment."""

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from server.cli.options import DEMO_CONFIG, AsJson, Config, DataDir, examples, existing_database, read_settings
from server.cli.output import one_line, print_json, print_rows, time_of
from server.errors import AlreadyCompleted, NotFound
from server.jobs.job import CancelOutcome
from server.jobs.request_state import State
from weights.progress_bar import duration

if TYPE_CHECKING:
    from pathlib import Path

    from server.jobs.job import Job
    from server.jobs.job_store import JobStore
    from server.jobs.request_list import ListedRequest

requests = typer.Typer(help="List, show and cancel requests.", no_args_is_help=True)

RequestId = Annotated[str, typer.Argument(help="As `requests list` shows it.")]
_ERROR = 60  # characters of an error in a list


@requests.command(
    "list",
    epilog=examples(
        "hunyuan-custom requests list --status failed --limit 5", "hunyuan-custom requests list --owner alice --json"
    ),
)
def list_command(
    *,
    owner: Annotated[str | None, typer.Option(help="Only this owner's.")] = None,
    status: Annotated[State | None, typer.Option(help="Only those in this state.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=100_000, help="Of the newest ones.")] = 20,
    config: Config = DEMO_CONFIG,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """The newest requests first: id, owner, state, times, attempts and error."""
    from server.jobs.request_list import list_requests

    database = existing_database(read_settings(config, data_dir))
    found = list_requests(database, owner=owner, state=status, limit=limit)
    if as_json:
        print_json([asdict(one) for one in found])
        return
    head = ("request", "owner", "state", "created", "waited", "ran", "attempts", "error")
    print_rows(head, [_row(one) for one in found])


@requests.command("show", epilog=examples("hunyuan-custom requests show 1f6a... --json"))
def show(
    request_id: RequestId, config: Config = DEMO_CONFIG, data_dir: DataDir = None, as_json: AsJson = False
) -> None:
    """One request: its input, state, times, attempts, error and log."""
    store = _store(config, data_dir)
    job = store.get(request_id)
    if job is None:
        raise NotFound(f"{request_id}: no such request")
    shown = _details(job) | {"log": [asdict(line) for line in store.logs(job.id)]}
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
def cancel(request_id: RequestId, config: Config = DEMO_CONFIG, data_dir: DataDir = None) -> None:
    """Stop a request as its owner could: a waiting one is over at once, a running one soon."""
    store = _store(config, data_dir)
    if store.get(request_id) is None:
        raise NotFound(f"{request_id}: no such request")
    outcome = store.cancel(request_id)
    if outcome is CancelOutcome.ALREADY_COMPLETED:
        raise AlreadyCompleted(f"{request_id}: the request is over already")
    was_running = outcome is CancelOutcome.WAS_RUNNING
    typer.echo(f"{request_id} {'will be stopped by its worker' if was_running else 'is cancelled'}")


def _row(one: "ListedRequest") -> list[object]:
    error = (one.error or "").splitlines()[:1]
    failed = f"{one.error_type}: {error[0] if error else ''}"[:_ERROR] if one.error_type else None
    waited = None if one.started_at is None else duration(one.started_at - one.created_at)
    ran = None if one.started_at is None or one.finished_at is None else duration(one.finished_at - one.started_at)
    return [one.request_id, one.owner, one.state, time_of(one.created_at), waited, ran, one.attempts, failed]


def _details(job: "Job") -> dict[str, Any]:
    from server.jobs import views
    from server.jobs.request_list import ListedRequest

    failure, listed = views.failure(job), ListedRequest.of(job)
    return {
        **asdict(listed),
        "priority": job.priority.name.lower(),
        "seed": str(job.seed),
        "input": json.loads(job.input_json),  # null: not valid, or forgotten as its sender asked
        "cancel_requested": job.cancel_requested,
        "webhook_url": job.webhook_url,
        "video": views.output(job).video.model_dump() if listed.state is State.SUCCEEDED else None,
        "response": None if failure is None else {"status": failure.status, "body": failure.body},
    }


def _store(config: "Path", data_dir: "Path | None") -> "JobStore":
    from server.jobs.dbos_queues import dbos_client
    from server.jobs.job_store import JobStore

    database = existing_database(read_settings(config, data_dir))
    return JobStore(database, dbos_client(database))
