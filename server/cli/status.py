"""`hunyuan-custom status`: queue, workers and what runs now, as the operator's page shows them."""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

import typer

from server.cli.options import (
    DEMO_CONFIG,
    AsJson,
    Config,
    DataDir,
    Key,
    ServerUrl,
    examples,
    existing_database,
    read_settings,
)
from server.cli.output import print_json, print_rows
from server.generator.state import TAKES_JOBS
from server.version import VERSION
from weights.progress_bar import duration

_GB: Final = 1e9
EXAMPLES: Final = examples(
    "hunyuan-custom status",
    "hunyuan-custom status --config configs/gpu-80gb.toml --json",
    "hunyuan-custom status --server https://video.example.com --key $FAL_KEY",
)


def register(app: typer.Typer) -> None:
    """Add the command of this file."""
    app.command(epilog=EXAMPLES)(status)


def status(
    *,
    server: ServerUrl = None,
    key: Key = None,
    config: Config = DEMO_CONFIG,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Whether videos can be made, what waits, what each worker does, and what failed lately.

    From the database of the deployment, or from a server that --key is an operator's key of.

    Checks by programs use `health`: it ends with exit code 1 where something is wrong.
    """
    seen = _of_server(server, key) if server is not None else _of_database(config, data_dir)
    seen = {"ready": any(map(_takes_jobs, seen["workers"])), **seen}
    if as_json:
        print_json(seen)
        return
    _print_head(seen)
    if seen["workers"]:
        typer.echo()
        print_rows(
            ("worker", "state", "heard of", "GPU memory", "detail"), [_worker_row(worker) for worker in seen["workers"]]
        )
    if seen["running"]:
        typer.echo()
        print_rows(
            ("running", "owner", "worker", "for", "attempt", "doing"), [_job_row(job) for job in seen["running"]]
        )
    if seen["failures"]:
        typer.echo()
        print_rows(("failed", "owner", "ago", "error"), [_failure_row(failure) for failure in seen["failures"][:5]])


def _of_server(server: str, key: str | None) -> dict[str, Any]:
    from server.generate.server_calls import ServerCalls

    with ServerCalls(server, key) as calls:
        return calls.ask("GET", "/admin/overview", expected="workers")


def _of_database(config: Path, data_dir: Path | None) -> dict[str, Any]:
    from server.jobs.overview_reader import OverviewReader

    settings = read_settings(config, data_dir)
    overview = OverviewReader(existing_database(settings), stale_s=settings.jobs.heartbeat_stale_s).read()
    return {"server": {"version": VERSION}, **asdict(overview)}


def _takes_jobs(worker: Mapping[str, Any]) -> bool:
    return worker["state"] in TAKES_JOBS and not worker["draining"] and not worker["stale"]


def _print_head(seen: Mapping[str, Any]) -> None:
    queue, webhooks, workers = seen["queue"], seen["webhooks"], seen["workers"]
    can = sum(map(_takes_jobs, workers))
    typer.echo(f"{'ready' if can else 'not ready'}: {can} of {len(workers)} workers can make videos")
    waiting = " and ".join(f"{count} {priority}" for priority, count in queue["waiting"].items() if count) or "0"
    oldest = f", for up to {duration(queue['oldest_wait_s'])}" if waiting != "0" else ""
    typer.echo(f"requests waiting: {waiting}{oldest}; running: {queue['running']}")
    typer.echo(f"webhooks to deliver: {webhooks['pending']}, failed: {webhooks['failed']}")


def _worker_row(worker: Mapping[str, Any]) -> list[object]:
    state = "gone" if worker["stale"] else f"{worker['state']}, draining" if worker["draining"] else worker["state"]
    memory = ", ".join(f"{gpu['used_bytes'] / _GB:.0f}/{gpu['total_bytes'] / _GB:.0f} GB" for gpu in worker["gpus"])
    return [worker["id"], state, f"{duration(worker['heartbeat_age_s'])} ago", memory, worker["detail"]]


def _job_row(job: Mapping[str, Any]) -> list[object]:
    doing = job["stage"]
    if job["total"]:
        doing = f"{doing} {100 * job['done'] // job['total']} %"
    if job["seconds_left"] is not None:
        doing = f"{doing}, about {duration(job['seconds_left'])} left"
    if job["lost"]:
        doing = "nothing: its worker is lost, and another one goes on with it"
    if job["cancelled"]:
        doing = f"{doing or '-'}, being cancelled"
    return [job["request_id"], job["owner"], job["worker_id"], duration(job["running_s"]), job["attempt"], doing]


def _failure_row(failure: Mapping[str, Any]) -> list[object]:
    error = f"{failure['status']} {failure['error_type']}: {failure['message']}"
    return [failure["request_id"], failure["owner"], duration(failure["ended_s"]), error[:80]]
