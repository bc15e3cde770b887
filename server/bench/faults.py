"""`hunyuan-custom bench faults`: what each fault costs on this machine, and whether anything is lost by it.

Through real processes on loopback. The generator sleeps instead of computing, so these are the costs of the machinery:
the time to load a real model and to repeat up to one denoising step comes on top.
"""

import math
import os
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import httpx
import typer

from server.bench.chaos import run_chaos
from server.bench.outages import DATABASE_AWAY_S, STORE_AWAY_S, database_away, store_away
from server.bench.processes import LIMIT_S, BenchServer, child_processes, expect, running_server, until
from server.settings import ENV_PREFIX

_SETTINGS: Final[dict[str, Any]] = {
    "generator": {"renderer": "server.bench.sleeping_renderer:SleepingRenderer", "device": "cpu"},
    "jobs": {"min_free_bytes": 0},
}
_DEMO: Final[dict[str, Any]] = {
    "generator": {"model": "demo", "device": "cpu", "dtype": "float32", "torch_threads": 1, "render_divisor": 4},
    "jobs": {"min_free_bytes": 0},
}
_STEPS: Final = 15  # of a job that is disturbed
_WRITES: Final = 10
# fp32 latents [1, 16, T, h, w] of 129 frames, and of what the demo renders for 81.
_LATENTS: Final = {
    "512p x 129 frames": (1, 16, 33, 64, 112),
    "720p x 129 frames": (1, 16, 33, 90, 160),
    "demo": (1, 16, 21, 16, 28),
}


@dataclass(frozen=True, slots=True)
class Plan:
    """How much is measured."""

    jobs: int = 200
    rounds: int = 3
    cancels: int = 100
    outages: bool = True  # and all else that takes longer than a few seconds


def bench_faults(plan: Plan) -> bool:
    """Run everything and print it; whether nothing was lost and nothing was there twice."""
    with running_server(_SETTINGS) as server:
        _print("cancel of a running job, until its result is 499", _cancels(server, plan.cancels))
        _print("generator killed, until the job's next step", _generator_kills(server, plan.rounds))
        _print("worker killed, until the job's next step", _worker_ends(server, plan.rounds, signal.SIGKILL))
        _print(
            "worker stopped by SIGTERM, until the job's next step", _worker_ends(server, plan.rounds, signal.SIGTERM)
        )
        _print("API killed, until it answers again", _api_kills(server, plan.rounds))
        if plan.outages:
            _print("machine frozen, until another one's next step", _machine_gone(server))
    if plan.outages:
        _print(f"database away for {DATABASE_AWAY_S:g} s, from its return to the result", database_away(_SETTINGS))
        _print(f"object store away for {STORE_AWAY_S:g} s, from its return to the result", store_away(_SETTINGS))
        _print_checkpoints(_demo_step())
    chaos = run_chaos(plan.jobs)
    for line in chaos.lines():
        typer.echo(line)
    return chaos.passed


def _print(name: str, measured: Iterator[float]) -> None:
    """One row: samples, median, and a p99 only where there are enough samples to have one."""
    seconds = sorted(measured)
    if not seconds:
        typer.echo(f"{name:<62} not measured: not installed")
        return
    p99 = f"p99 {seconds[math.ceil(0.99 * len(seconds)) - 1]:6.2f} s  " if len(seconds) >= 100 else ""
    typer.echo(
        f"{name:<62} {len(seconds):>3} x  median {statistics.median(seconds):6.2f} s  {p99}worst {seconds[-1]:6.2f} s"
    )


def _cancels(server: BenchServer, rounds: int) -> Iterator[float]:
    client = server.client
    for _ in range(rounds):
        running = client.submit()
        client.until(running, "IN_PROGRESS")
        started = time.perf_counter()
        client.cancel(running)
        client.until(running, "COMPLETED")
        yield time.perf_counter() - started
        expect(client.result(running).status_code == 499, "a cancelled job answers 499")


def _generator_kills(server: BenchServer, rounds: int) -> Iterator[float]:
    def kill() -> None:
        (generator,) = child_processes(server.supervisor.pid_of("worker"), "server.generator.child.process")
        os.kill(generator, signal.SIGKILL)

    for _ in range(rounds):
        yield _disturbed(server, kill)


def _worker_ends(server: BenchServer, rounds: int, number: signal.Signals) -> Iterator[float]:
    for _ in range(rounds):
        yield _disturbed(server, lambda: os.kill(server.supervisor.pid_of("worker"), number))


def _disturbed(server: BenchServer, disturb: Callable[[], None]) -> float:
    """Seconds from a fault in a job's middle to the first step after it."""
    running = server.client.submit(_STEPS)
    server.client.until_step(running)
    started = time.perf_counter()
    disturb()
    server.client.until_step(running, after="Attempt 2")
    seconds = time.perf_counter() - started
    server.client.until(running, "COMPLETED")
    expect(server.client.result(running).status_code == httpx.codes.OK, "a job whose process ended succeeds")
    return seconds


def _api_kills(server: BenchServer, rounds: int) -> Iterator[float]:
    for _ in range(rounds):
        waiting = server.client.submit(steps=10)
        started = time.perf_counter()
        os.kill(server.supervisor.pid_of("api"), signal.SIGKILL)
        server.client.reconnect()
        server.client.http.get("/health/live").raise_for_status()  # waits in the backlog until the new one takes it
        yield time.perf_counter() - started
        server.client.until(waiting, "COMPLETED")
        expect(server.client.result(waiting).status_code == httpx.codes.OK, "an accepted job survives the API")


def _machine_gone(server: BenchServer) -> Iterator[float]:
    """Its worker and generator stop for good, as far as anybody can tell, and wake up when another has taken over."""
    worker = server.supervisor.pid_of("worker")
    gone = [worker, *child_processes(worker)]
    running = server.client.submit(_STEPS * 2)
    server.client.until_step(running)
    command = [sys.executable, "-m", "server", "worker", "--config", str(server.config)]
    environment = os.environ | {f"{ENV_PREFIX}WORKER_ID": "another"}
    with (
        (server.folder / "bench.log").open("ab") as log,
        subprocess.Popen(command, env=environment, stderr=log) as other,
    ):
        try:
            for pid in gone:
                os.kill(pid, signal.SIGSTOP)
            started = time.perf_counter()
            server.client.until_step(running, after="Attempt 2")
            yield time.perf_counter() - started
            server.client.until(running, "COMPLETED")
            before = server.client.result(running).json()
            for pid in gone:
                os.kill(pid, signal.SIGCONT)
            after = server.client.submit(10)
            server.client.until(after, "COMPLETED")
            expect(server.client.result(running).json() == before, "a machine that wakes up changes nothing")
        finally:
            other.terminate()


def _demo_step() -> float:
    """Seconds of a denoising step of the demo model, as its own log says."""
    with running_server(_DEMO) as server:
        running = server.client.submit(10)
        until(lambda: len(_step_seconds(server.client.messages(running))) >= 3, 2 * LIMIT_S)
        seconds = statistics.median(_step_seconds(server.client.messages(running)))
        server.client.cancel(running)
        server.client.until(running, "COMPLETED")
    return seconds


def _step_seconds(messages: list[str]) -> list[float]:
    return [float(found[1]) for line in messages if (found := re.match(r"Denoising step \d+/\d+: ([\d.]+) s", line))]


def _print_checkpoints(demo_step_s: float) -> None:
    import torch

    from pipeline.checkpoint import Checkpoint, write_checkpoint

    with tempfile.TemporaryDirectory() as folder:
        for name, shape in _LATENTS.items():
            latents, seconds = torch.zeros(shape), []
            for step in range(_WRITES):
                started = time.perf_counter()
                write_checkpoint(Path(folder) / "x", Checkpoint(step, latents), "bench")
                seconds.append(time.perf_counter() - started)
            _print(f"checkpoint of {name} written ({latents.nbytes / 1e6:.1f} MB)", iter(seconds))
    share = statistics.median(seconds) / demo_step_s
    typer.echo(f"a checkpoint of the demo takes {share:.1%} of its step of {demo_step_s:.2f} s")
