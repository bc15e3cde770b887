"""`hunyuan-custom bench sizing`: what a number of workers asks of the database, and how long requests wait for them.

The statements of up to a thousand workers are sent to a PostgreSQL on this machine by a simulation of the queue, in its
own time; then the workers all claim at once. Threads of one process share the processors with the database: claims a
second are what this machine does at least.
"""

import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import typer

from server.bench.fake_workers import FakeWorkers
from server.bench.line_plot import Line, line_plot
from server.bench.queue_model import InOrder, Load, percentile, simulate, steady_mean
from server.bench.throwaway_postgres import Postgres, find_binaries
from server.bench.waiting import LIMIT_S, expect
from server.db.migrations import migrate
from server.settings import Settings

_THREADS: Final = 16
_UTILISATION: Final = 0.9
_BEATS: Final = 50
_SQLITE_WORKERS: Final = 16  # of one machine
_SAMPLES: Final = 20_000  # requests for each dot of the plot, or 40 for each worker


@dataclass(frozen=True, slots=True)
class Measured:
    """Of so many workers on one database; times in seconds."""

    workers: int
    claims_per_s: float
    took: dict[str, list[float]]

    def row(self, database: str, settings: Settings, render_s: float) -> str:
        """One line of the table. Its end: claims that full GPUs need, and what heartbeats and polls add to that."""
        every, looking_ms = settings.jobs, self._ms("heartbeat", 0.5) + self._ms("look at others", 0.5)
        polling_ms = self._ms("poll", 0.5)
        busy = self.workers * (polling_ms / every.engine_poll_s + looking_ms / every.heartbeat_s) / 1000
        at_once = f"{self._ms('claim', 0.5):.0f}/{self._ms('claim', 0.99):.0f}"
        submit = f"{self._ms('submit', 0.5):.0f}/{self._ms('submit', 0.99):.0f}"
        return (
            f"{database:<11}{self.workers:>7}  {self.claims_per_s:>8.0f}  {at_once:>10}  {submit:>8}  "
            f"{self._ms('complete', 0.5):>8.0f}  {looking_ms:>9.1f}  {polling_ms:>4.1f}  "
            f"{self.workers / render_s:>8.3f}  {busy:>16.2f}"
        )

    def _ms(self, what: str, share: float) -> float:
        return 1000 * percentile(self.took[what], share)


_HEAD: Final = (
    "                    all claim at once    submit ms  complete  heartbeat  poll    needed  connections busy\n"
    "database   workers  claims/s  ms p50/p99   p50/p99        ms         ms    ms  claims/s  between claims"
)


def bench_sizing(*, workers: int, render_s: float, plot: Path | None) -> None:
    """Measure and print; `plot` is the file for the waits of the model."""
    sizes = [size for size in (1, 10, 100, 1000) if size < workers] + [workers]
    settings = Settings()
    typer.echo(_HEAD)
    with _postgres() as postgres:
        for size in sizes:
            if size <= _SQLITE_WORKERS:
                with tempfile.TemporaryDirectory() as folder:
                    found = _measure(f"sqlite:///{folder}/x.sqlite", size, render_s)
                typer.echo(found.row("SQLite", settings, render_s))
            if postgres is not None:
                typer.echo(_measure(postgres.new_database(), size, render_s).row("PostgreSQL", settings, render_s))
    if postgres is None:
        typer.echo("PostgreSQL  not measured: not installed")
    for size in sizes:
        load = Load(size, render_s, _UTILISATION)
        simulated_s = _simulated(load)
        typer.echo(
            f"{size:>5} workers, {_UTILISATION:.0%} busy, renders of {render_s:g} s: a request waits "
            f"{load.expected_wait_s():.1f} s by the formula, {simulated_s:.1f} s in the simulation"
        )
    if plot is not None:
        plot.write_text(_waits_plot(sizes, render_s))


@contextmanager
def _postgres() -> Iterator[Postgres | None]:
    """A server of its own; None without the programs."""
    binaries = find_binaries()
    if binaries is None:
        yield None
        return
    server = Postgres(binaries)
    try:
        server.start()
        yield server
    finally:
        server.remove()


def _measure(url: str, workers: int, render_s: float) -> Measured:
    """A simulated queue on the real statements, then all workers at once."""
    with tempfile.TemporaryDirectory() as folder:
        migrate(url, Path(folder) / "lock")
    with FakeWorkers(url) as fakes:
        fakes.register(workers)
        load, jobs = Load(workers, render_s, _UTILISATION), workers + workers // 2 + 50
        waits = simulate(load, fakes, jobs=jobs, seed=1)
        expect(waits == simulate(load, InOrder(), jobs=jobs, seed=1), "the queue is in the order of arrival")
        for number in range(jobs, jobs + workers):
            fakes.add(number, time.time())
        fakes.took["claim"].clear()
        taken, seconds = _all_at_once(fakes, workers)
        expect(sorted(taken.values()) == list(range(jobs, jobs + workers)), "every job is claimed once")
        for number in range(_BEATS):  # while all are at work
            fakes.beat(number % workers)
            fakes.poll(number % workers)
        for worker, number in taken.items():
            fakes.complete(worker, number, time.time())
        return Measured(workers, workers / seconds, dict(fakes.took))


def _all_at_once(fakes: FakeWorkers, workers: int) -> tuple[dict[int, int], float]:
    """Every worker takes one job, over connections that are open: which one, and how many seconds that took."""
    taken: dict[int, int] = {}
    now = time.time()
    threads = min(workers, _THREADS)
    connected = threading.Barrier(threads + 1)

    def claim(first: int) -> None:
        fakes.poll(first)
        connected.wait(LIMIT_S)
        for worker in range(first, workers, threads):
            found = None
            while found is None:  # others hold the rows that it has looked at
                found = fakes.claim(worker, now)
            taken[worker] = found

    with ThreadPoolExecutor(threads) as pool:
        claiming = [pool.submit(claim, first) for first in range(threads)]
        connected.wait(LIMIT_S)
        started = time.perf_counter()
        for one in claiming:
            one.result()
        return taken, time.perf_counter() - started


def _waits_plot(sizes: list[int], render_s: float) -> str:
    """Mean wait over utilisation: lines by the formula, dots from the simulation."""
    shares = [number / 100 for number in range(50, 99)]
    lines = []
    for size in sizes:
        loads = [Load(size, render_s, share) for share in shares]
        dots = [Load(size, render_s, share) for share in (0.6, 0.7, 0.8, 0.9, 0.95)]
        lines.append(
            Line(
                f"{size} GPU{'s' * (size > 1)}",
                [(100 * load.utilisation, load.expected_wait_s() / 60) for load in loads],
                [(100 * load.utilisation, _simulated(load) / 60) for load in dots],
            )
        )
    return line_plot(
        lines,
        x_label=f"GPUs busy, per cent (a render takes {render_s:g} s)",
        y_label="mean wait, minutes",
        x_ticks=[50, 60, 70, 80, 90, 100],
        y=(0.01, 1000),
    )


def _simulated(load: Load) -> float:
    jobs = max(_SAMPLES, 40 * load.workers)
    return steady_mean(simulate(load, InOrder(), jobs=jobs, seed=1))
