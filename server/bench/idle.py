"""`hunyuan-custom bench idle`: what a server with nothing to do costs, and how soon it reacts after a quiet spell.

Real processes on loopback, with default intervals; the generator sleeps instead of computing.
"""

import math
import os
import statistics
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import typer

from server.bench.deployment import temporary_server
from server.bench.live_server import LiveServer
from server.bench.sample_request import example, grey_uri
from server.bench.throwaway_postgres import Postgres, find_binaries
from server.bench.waiting import expect, until

_SETTINGS: Final[dict[str, Any]] = {
    "generator__renderer": "server.bench.sleeping_renderer:SleepingRenderer",
    "jobs__min_free_bytes": 0,
}
_GOAL: Final = 0.01  # of a core, for the three processes together
_SETTLE_S: Final = 65.0  # DBOS looks more often in its first minute
_QUIET_S: Final = 1.0  # before each measured reaction; a few intervals of every poll
_CLOSELY_S: Final = 0.002
_STEPS: Final = 30  # more than are made until a cancel
_CANCELLED: Final = 499


def bench_idle(*, seconds: float, reactions: int) -> bool:
    """Measure with SQLite and, where it is installed, with Postgres; whether all stayed within the goal."""
    typer.echo(f"{os.cpu_count()} cores, load average before: {os.getloadavg()[0]:.1f}")
    met = _measure("sqlite", {}, seconds, reactions)
    with _postgres() as url:
        if url is None:
            typer.echo("postgres: not measured: not installed")
        else:
            met = _measure("postgres", {"database_url": url}, seconds, reactions) and met
    return met


def _measure(name: str, database: dict[str, Any], seconds: float, reactions: int) -> bool:
    with temporary_server(_SETTINGS | database) as server:
        met = not seconds or _is_cheap(name, server, seconds)
        measured = [_reaction(server) for _ in range(reactions)]
        for what, column in (("submit until IN_PROGRESS", 0), ("cancel until its result is 499", 1)):
            if measured:
                words = _percentiles([row[column] for row in measured])
                typer.echo(f"     {name}: {what}, after a quiet spell: {words}")
    return met


def _is_cheap(name: str, server: LiveServer, seconds: float) -> bool:
    time.sleep(_SETTLE_S)
    shares = _shares(server, seconds)
    together = sum(shares.values())
    words = ", ".join(f"{role} {share:.2%}" for role, share in shares.items())
    met = together <= _GOAL
    typer.echo(f"{'ok  ' if met else 'MISS'} {name}: {together:.2%} of a core in {seconds:.0f} s ({words})")
    return met


def _shares(server: LiveServer, seconds: float) -> dict[str, float]:
    """Of a core, by process."""
    pids = {"serve": server.process.pid, "api": server.pid_of("api"), "worker": server.pid_of("worker")}
    before, started = {role: _cpu_s(pid) for role, pid in pids.items()}, time.monotonic()
    time.sleep(seconds)
    took = time.monotonic() - started
    return {role: (_cpu_s(pid) - before[role]) / took for role, pid in pids.items()}


def _cpu_s(pid: int) -> float:
    """Seconds of CPU time that a process has used, in user mode and in the kernel."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _reaction(server: LiveServer) -> tuple[float, float]:
    """Seconds from a submit until its job runs, and from its cancel until it is over."""
    time.sleep(_QUIET_S)
    submitted = time.perf_counter()
    request_id = server.submit(example(image_url=grey_uri(), num_inference_steps=_STEPS))
    until(lambda: server.status(request_id)["status"] == "IN_PROGRESS", every_s=_CLOSELY_S)
    started = time.perf_counter()
    server.cancel(request_id).raise_for_status()
    until(lambda: server.status(request_id)["status"] == "COMPLETED", every_s=_CLOSELY_S)
    over = time.perf_counter()
    expect(server.result(request_id).status_code == _CANCELLED, "a cancel is not lost")
    return started - submitted, over - started


def _percentiles(seconds: Sequence[float]) -> str:
    ordered = sorted(seconds)
    p99 = ordered[math.ceil(0.99 * len(ordered)) - 1]
    return f"{len(ordered)} x, p50 {1000 * statistics.median(ordered):.0f} ms, p99 {1000 * p99:.0f} ms"


@contextmanager
def _postgres() -> Iterator[str | None]:
    binaries = find_binaries()
    if binaries is None:
        yield None
        return
    postgres = Postgres(binaries)
    try:
        postgres.start()
        yield postgres.new_database()
    finally:
        postgres.remove()
