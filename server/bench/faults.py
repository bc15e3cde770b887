"""`hunyuan-custom bench faults`: what each fault costs on this machine, and whether anything is lost by it.

Through real processes on loopback. The generator sleeps instead of computing, so these are the costs of the machinery:
the time to load a real model and to repeat up to one denoising step comes on top.
"""

import math
import os
import re
import signal
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import httpx
import typer

from server.bench.chaos import run_chaos
from server.bench.deployment import Deployment, temporary_server
from server.bench.live_server import LiveServer
from server.bench.outages import DATABASE_AWAY_S, STORE_AWAY_S, database_away, store_away
from server.bench.sample_request import example, grey_uri
from server.bench.waiting import LIMIT_S, child_processes, expect, until

_SETTINGS: Final[dict[str, Any]] = {
    "generator__renderer": "server.bench.sleeping_renderer:SleepingRenderer",
    "jobs__min_free_bytes": 0,
}
_DEMO: Final[dict[str, Any]] = {"jobs__min_free_bytes": 0}  # the model of configs/demo.toml
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
    with temporary_server(_SETTINGS) as server:
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


def _submit(server: LiveServer, *, steps: int) -> str:
    return server.submit(example(image_url=grey_uri(), num_inference_steps=steps))


def _cancels(server: LiveServer, rounds: int) -> Iterator[float]:
    for _ in range(rounds):
        running = _submit(server, steps=30)
        server.until_running(running)
        started = time.perf_counter()
        server.cancel(running).raise_for_status()
        server.until_completed(running)
        yield time.perf_counter() - started
        expect(server.result(running).status_code == 499, "a cancelled job answers 499")


def _generator_kills(server: LiveServer, rounds: int) -> Iterator[float]:
    def kill() -> None:
        (generator,) = child_processes(server.pid_of("worker"), "server.generator.child.process")
        os.kill(generator, signal.SIGKILL)

    for _ in range(rounds):
        yield _disturbed(server, kill)


def _worker_ends(server: LiveServer, rounds: int, number: signal.Signals) -> Iterator[float]:
    for _ in range(rounds):
        yield _disturbed(server, lambda: os.kill(server.pid_of("worker"), number))


def _disturbed(server: LiveServer, disturb: Callable[[], None]) -> float:
    """Seconds from a fault in a job's middle to the first step after it."""
    running = _submit(server, steps=_STEPS)
    server.until_step(running)
    started = time.perf_counter()
    disturb()
    server.until_step(running, after="Attempt 2")
    seconds = time.perf_counter() - started
    server.until_completed(running)
    expect(server.result(running).status_code == httpx.codes.OK, "a job whose process ended succeeds")
    return seconds


def _api_kills(server: LiveServer, rounds: int) -> Iterator[float]:
    for _ in range(rounds):
        waiting = _submit(server, steps=10)
        started = time.perf_counter()
        os.kill(server.pid_of("api"), signal.SIGKILL)
        server.reconnect()
        server.http.get("/health/live").raise_for_status()  # waits in the backlog until the new one takes it
        yield time.perf_counter() - started
        server.until_completed(waiting)
        expect(server.result(waiting).status_code == httpx.codes.OK, "an accepted job survives the API")


def _machine_gone(server: LiveServer) -> Iterator[float]:
    """Its worker and generator stop, which looks like the end of them, and go on when another has taken over."""
    worker = server.pid_of("worker")
    gone = [worker, *child_processes(worker)]
    running = _submit(server, steps=2 * _STEPS)
    server.until_step(running)
    with Deployment(server.data_dir, _SETTINGS, log=server.data_dir / "other.log") as other:
        other.start_worker("another")
        for pid in gone:
            os.kill(pid, signal.SIGSTOP)
        started = time.perf_counter()
        server.until_step(running, after="Attempt 2")
        yield time.perf_counter() - started
        before = server.finish(running).json()
        for pid in gone:
            os.kill(pid, signal.SIGCONT)
        server.finish(_submit(server, steps=10))
        expect(server.result(running).json() == before, "a machine that wakes up changes nothing")


def _demo_step() -> float:
    """Seconds of a denoising step of the demo model, as its own log says."""
    with temporary_server(_DEMO) as server:
        running = _submit(server, steps=10)
        until(lambda: len(_step_seconds(server.messages(running))) >= 3, 2 * LIMIT_S)
        seconds = statistics.median(_step_seconds(server.messages(running)))
        server.cancel(running).raise_for_status()
        server.until_completed(running)
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
                write_checkpoint(Path(folder) / "x", Checkpoint(step, latents, "a prompt", "object"), "bench")
                seconds.append(time.perf_counter() - started)
            _print(f"checkpoint of {name} written ({latents.nbytes / 1e6:.1f} MB)", iter(seconds))
    share = statistics.median(seconds) / demo_step_s
    typer.echo(f"a checkpoint of the demo takes {share:.1%} of its step of {demo_step_s:.2f} s")
