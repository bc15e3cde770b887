"""`hunyuan-custom bench faults`: how long each fault costs on this machine, through real processes on loopback.

The generator sleeps instead of computing, so these are the costs of the machinery: the time to load a real model and
to repeat up to one denoising step comes on top.
"""

import base64
import io
import os
import signal
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import typer
from PIL import Image

from server.demo import wait_until_ready
from server.schemas import ENDPOINT
from server.settings import load_settings
from server.supervisor import Supervisor

_ROUNDS = 10
_CANCELS = 50
_LIMIT_S = 60.0

_SETTINGS = """
data_dir = "{data_dir}"
[generator]
renderer = "server.sleeping_renderer:SleepingRenderer"
device = "cpu"
[jobs]
min_free_bytes = 0
"""


@dataclass(frozen=True, slots=True)
class Measured:
    """Seconds of one kind of fault."""

    name: str
    seconds: list[float]

    def row(self) -> str:
        """A line of the table: rounds, median, the worst."""
        worst = statistics.quantiles(self.seconds, n=100)[98] if len(self.seconds) >= _CANCELS else max(self.seconds)
        label = "p99" if len(self.seconds) >= _CANCELS else "max"
        median = statistics.median(self.seconds)
        return f"{self.name:<52} {len(self.seconds):>3} x  p50 {median:6.2f} s  {label} {worst:6.2f} s"


class _Client:
    def __init__(self, url: str) -> None:
        self._url = url
        self.reconnect()
        self._requests = f"/queue/{ENDPOINT}/requests"
        self._image = _grey_image()

    def reconnect(self) -> None:
        """Kept-alive connections to a killed API are of no use."""
        self.http = httpx.Client(base_url=self._url, trust_env=False, timeout=_LIMIT_S)

    def submit(self, steps: int = 30) -> str:
        body = {"prompt": "bench", "image_url": self._image, "num_inference_steps": steps}
        return str(self.http.post(f"/queue/{ENDPOINT}", json=body).raise_for_status().json()["request_id"])

    def status(self, request_id: str) -> dict[str, Any]:
        return dict(self.http.get(f"{self._requests}/{request_id}/status?logs=1").json())

    def cancel(self, request_id: str) -> None:
        self.http.put(f"{self._requests}/{request_id}/cancel").raise_for_status()

    def until(self, request_id: str, status: str) -> None:
        _until(lambda: bool(self.status(request_id)["status"] == status))

    def until_step(self, request_id: str, *, after: str = "") -> None:
        """Wait for the third step, or for the first one after a certain log line."""
        _until(lambda: self._steps(request_id, after) >= (1 if after else 3))

    def _steps(self, request_id: str, after: str) -> int:
        messages = [line["message"] for line in self.status(request_id).get("logs") or []]
        if after:
            messages = messages[messages.index(after) :] if after in messages else []
        return sum(message.startswith("Denoising") for message in messages)

    def result_status(self, request_id: str) -> int:
        return self.http.get(f"{self._requests}/{request_id}").status_code

    def pid(self, key: str) -> int:
        return int(self.http.get("/health/ready").json()["workers"][0][key])


def bench_faults() -> None:
    """Run all faults and print the table."""
    with _server() as (client, server):
        rows = [
            Measured("cancel of a running job, until its result is 499", list(_cancels(client))),
            Measured("generator killed, until the job's next step", list(_kills(client, "generator_pid"))),
            Measured("worker killed, until the job's next step", list(_kills(client, "pid"))),
            Measured("API killed, until it answers again", list(_api_kills(client, server))),
            Measured("checkpoint of 720p x 129 frames written (30 MB)", list(_checkpoints())),
        ]
    for row in rows:
        typer.echo(row.row())


@contextmanager
def _server() -> Iterator[tuple[_Client, Supervisor]]:
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder) / "bench.toml"
        config.write_text(_SETTINGS.format(data_dir=folder))
        settings = load_settings(config, {"api": {"port": 0}})
        with Supervisor(settings, ["--config", str(config)], log=Path(folder) / "bench.log") as server:
            wait_until_ready(server.url, timeout_s=_LIMIT_S)
            yield _Client(server.url), server


def _cancels(client: _Client) -> Iterator[float]:
    for _ in range(_CANCELS):
        running = client.submit()
        client.until(running, "IN_PROGRESS")
        started = time.perf_counter()
        client.cancel(running)
        client.until(running, "COMPLETED")
        yield time.perf_counter() - started
        _expect(client.result_status(running) == 499, "a cancelled job answers 499")


def _kills(client: _Client, victim: str) -> Iterator[float]:
    for _ in range(_ROUNDS):
        running = client.submit()
        client.until_step(running)
        started = time.perf_counter()
        os.kill(client.pid(victim), signal.SIGKILL)
        client.until_step(running, after="Attempt 2")
        yield time.perf_counter() - started
        client.until(running, "COMPLETED")
        _expect(client.result_status(running) == 200, "a job whose process was killed succeeds")


def _api_kills(client: _Client, server: Supervisor) -> Iterator[float]:
    for _ in range(_ROUNDS):
        waiting = client.submit(steps=10)
        started = time.perf_counter()
        os.kill(server.pid_of("api"), signal.SIGKILL)
        with httpx.Client(base_url=server.url, trust_env=False, timeout=_LIMIT_S) as fresh:
            fresh.get("/health/live").raise_for_status()  # waits in the backlog until the new one takes it
        yield time.perf_counter() - started
        client.reconnect()
        client.until(waiting, "COMPLETED")
        _expect(client.result_status(waiting) == 200, "an accepted job survives the API")


def _checkpoints() -> Iterator[float]:
    import torch

    from pipeline.checkpoint import Checkpoint, write_checkpoint

    with tempfile.TemporaryDirectory() as folder:
        latents = torch.zeros(1, 16, 33, 90, 160)
        for step in range(_ROUNDS):
            started = time.perf_counter()
            write_checkpoint(Path(folder) / "x", Checkpoint(step, latents), "bench")
            yield time.perf_counter() - started


def _until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + _LIMIT_S
    while not condition():
        _expect(time.monotonic() < deadline, f"within {_LIMIT_S:g} s")
        time.sleep(0.02)


def _expect(condition: bool, promise: str) -> None:
    if not condition:
        raise RuntimeError(f"broken promise: {promise}")


def _grey_image() -> str:
    encoded = io.BytesIO()
    Image.new("RGB", (64, 64), "grey").save(encoded, "PNG")
    return f"data:image/png;base64,{base64.b64encode(encoded.getvalue()).decode()}"
