"""`hunyuan-custom bench cluster`: SQLite and PostgreSQL beside each other, each with an API and two workers.

Real processes on loopback, a generator that sleeps. The two databases take turns, so that a busy moment hits both.
"""

import asyncio
import json
import signal
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import sqlalchemy as sa
import typer

from server.bench.deployment import Deployment
from server.bench.http_client import closed_loop, get, post
from server.bench.live_server import LiveServer
from server.bench.sample_request import example, grey_uri
from server.bench.throwaway_postgres import Postgres, find_binaries
from server.bench.waiting import expect, until
from server.db.migrations import migrate
from server.db.tables import request_table
from server.fal.schemas import ENDPOINT

_STALE_S: Final = 5.0
_SETTINGS: Final[dict[str, Any]] = {
    "generator__renderer": "server.bench.sleeping_renderer:SleepingRenderer",
    "jobs__min_free_bytes": 0,
    "jobs__heartbeat_s": 0.5,
    "jobs__heartbeat_stale_s": _STALE_S,
    "limits__max_queue": 1_000_000,
    "limits__posts_per_s": 100_000,
    "limits__posts_burst": 100_000,
}
_QUEUE: Final = f"/queue/{ENDPOINT}"
_SETTLES_S: Final = 5.0  # a worker takes a job and has opened what it needs
_SUBMITTING, _ASKING = 8, 16  # connections


@dataclass(slots=True)
class _Side:
    """One database, its processes, and what was measured."""

    name: str
    deployment: Deployment
    api: LiveServer
    url: str
    connections: tuple[int, int] | None = None  # to the database: of the API, of a worker
    takeovers: list[float] = field(default_factory=list)
    submits: list[float] = field(default_factory=list)
    statuses: list[float] = field(default_factory=list)

    def row(self) -> str:
        """As text."""
        return (
            f"{self.name:<11}{statistics.median(self.submits):>10.0f}{statistics.median(self.statuses):>10.0f}"
            f"{statistics.median(self.takeovers):>10.2f} s{max(self.takeovers):>9.2f} s"
            + (f"{self.connections[0]:>12}, {self.connections[1]}" if self.connections else "")
        )


def bench_cluster(*, rounds: int, seconds: float) -> None:
    """Measure and print."""
    with ExitStack() as stack:
        sides = [stack.enter_context(_side("SQLite", ""))]
        binaries = find_binaries()
        if binaries is not None:
            postgres = Postgres(binaries)
            stack.callback(postgres.remove)
            postgres.start()
            sides.append(stack.enter_context(_side("PostgreSQL", postgres.new_database())))
        for _ in range(rounds):
            for side in sides:
                side.takeovers.append(_takeover(side))
        for _ in range(rounds):
            for side in sides:
                side.submits.append(_rate(side, _submit(), _SUBMITTING, seconds))
        for _ in range(rounds):
            for side in sides:
                status = get(f"{_QUEUE}/requests/{side.api.submit()}/status")
                side.statuses.append(_rate(side, status, _ASKING, seconds))
        for side in sides:
            side.connections = _connections(side)
        typer.echo("database    submits/s  status/s   takeover*    worst*     connections of API, of a worker")
        for side in sides:
            typer.echo(side.row())
        typer.echo("* until the next step, from when the dead worker counts as gone (jobs.heartbeat_stale_s)")
        if binaries is None:
            typer.echo("PostgreSQL  not measured: not installed")


@contextmanager
def _side(name: str, url: str) -> Iterator[_Side]:
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        url = url or f"sqlite:///{folder / 'hunyuan-custom.sqlite'}"
        migrate(url, folder / "migrate.lock")
        with Deployment(folder, {**_SETTINGS, "database_url": url}, log=folder / "bench.log") as deployment:
            yield _Side(name, deployment, deployment.start_api(), url)


def _takeover(side: _Side) -> float:
    """Seconds from when a killed worker counts as gone until the next step of its job, on another one."""
    names = [f"{name}-{len(side.takeovers)}" for name in ("one", "another")]
    for name in names:
        side.deployment.start_worker(name)
    until(lambda: {row["id"] for row in _workers(side) if row["state"] == "ready"} >= set(names))
    running = side.api.submit(example(image_url=grey_uri(), num_inference_steps=30))
    side.api.until_step(running)
    has_it = _worker_of(side, running)
    side.deployment.signal(has_it, signal.SIGKILL)
    killed = time.perf_counter()
    side.api.until_step(running, after="Attempt 2")
    took = time.perf_counter() - killed - _STALE_S
    side.api.cancel(running).raise_for_status()
    expect(side.api.finish(running).status_code == 499, "a job that was taken over can be cancelled")
    (alive,) = set(names) - {has_it}
    side.deployment.signal(alive, signal.SIGTERM)
    side.deployment.wait(alive)
    return took


def _worker_of(side: _Side, request_id: str) -> str:
    database = sa.create_engine(side.url, poolclass=sa.NullPool)
    with database.connect() as connection:
        of_it = sa.select(request_table.c.worker_id).where(request_table.c.id == request_id)
        return str(connection.execute(of_it).scalar_one())


def _connections(side: _Side) -> tuple[int, int] | None:
    """After the load, and with one worker at work besides."""
    if side.url.startswith("sqlite"):
        return None
    database = sa.create_engine(side.url, poolclass=sa.NullPool)
    open_ones = sa.text("SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> :own")
    own = sa.text("SELECT pg_backend_pid()")

    def count() -> int:
        with database.connect() as connection:
            return int(connection.execute(open_ones, {"own": connection.execute(own).scalar_one()}).scalar_one())

    of_api = count()
    side.deployment.start_worker("counted")
    until(lambda: any(row["id"] == "counted" and row["state"] == "ready" for row in _workers(side)))
    time.sleep(_SETTLES_S)
    both = count()
    return of_api, both - of_api


def _workers(side: _Side) -> list[dict[str, Any]]:
    return list(side.api.http.get("/health/ready").json()["workers"])


def _submit() -> bytes:
    return post(_QUEUE, json.dumps(example(image_url=grey_uri())).encode())


def _rate(side: _Side, request: bytes, connections: int, seconds: float) -> float:
    return asyncio.run(closed_loop(side.api.url, request, connections=connections, seconds=seconds))
