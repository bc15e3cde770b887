"""A server for benchmarks: real processes in a directory of their own, and a client that waits for what they do."""

import base64
import io
import json
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import httpx
from PIL import Image

from server.fal.schemas import ENDPOINT
from server.serve.readiness import wait_until_ready
from server.serve.supervisor import Supervisor
from server.settings import load_settings

LIMIT_S: Final = 60.0
_LOOK_EVERY_S: Final = 0.02


class Client:
    """The calls that the benchmarks make."""

    def __init__(self, url: str) -> None:
        self._url = url
        self.http = self._connection()
        self._requests = f"/queue/{ENDPOINT}/requests"
        self._image = _grey_image()

    def reconnect(self) -> None:
        """Kept-alive connections to a killed API are of no use."""
        self.http.close()
        self.http = self._connection()

    def _connection(self) -> httpx.Client:
        return httpx.Client(base_url=self._url, trust_env=False, timeout=LIMIT_S)

    def submit(self, steps: int = 30, *, webhook: str = "", idempotency_key: str = "") -> str:
        """Put a request into the queue."""
        body = {"prompt": "bench", "image_url": self._image, "num_inference_steps": steps}
        headers = {"Idempotency-Key": idempotency_key} if idempotency_key else {}
        query = {"fal_webhook": webhook} if webhook else {}
        answer = self.http.post(f"/queue/{ENDPOINT}", json=body, headers=headers, params=query)
        return str(answer.raise_for_status().json()["request_id"])

    def status(self, request_id: str) -> dict[str, Any]:
        """Its status, with logs."""
        return dict(self.http.get(f"{self._requests}/{request_id}/status?logs=1").json())

    def messages(self, request_id: str) -> list[str]:
        """The lines of its log."""
        return [line["message"] for line in self.status(request_id).get("logs") or []]

    def cancel(self, request_id: str) -> None:
        """Give it up."""
        self.http.put(f"{self._requests}/{request_id}/cancel").raise_for_status()

    def until(self, request_id: str, status: str) -> None:
        """Wait for a status."""
        until(lambda: bool(self.status(request_id)["status"] == status))

    def until_step(self, request_id: str, *, after: str = "") -> None:
        """Wait for the third step, or for the first one after a certain log line."""
        until(lambda: self._steps(request_id, after) >= (1 if after else 3))

    def _steps(self, request_id: str, after: str) -> int:
        messages = self.messages(request_id)
        if after:
            messages = messages[messages.index(after) :] if after in messages else []
        return sum(message.startswith("Denoising") for message in messages)

    def result(self, request_id: str) -> httpx.Response:
        """What it ended with."""
        return self.http.get(f"{self._requests}/{request_id}")


@dataclass(frozen=True, slots=True)
class BenchServer:
    """A running one."""

    client: Client
    supervisor: Supervisor
    config: Path
    folder: Path


@contextmanager
def running_server(settings: Mapping[str, Any]) -> Iterator[BenchServer]:
    """Start a server with these settings and wait until it is ready; stopped and removed afterwards."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        config = folder / "bench.toml"
        config.write_text(_toml({"data_dir": name, **settings}))
        loaded = load_settings(config, {"api": {"port": 0}})
        with Supervisor(loaded, ["--config", str(config)], log=folder / "bench.log") as supervisor:
            wait_until_ready(supervisor.url, timeout_s=LIMIT_S)
            client = Client(supervisor.url)
            try:
                yield BenchServer(client, supervisor, config, folder)
            finally:
                client.http.close()


def until(condition: Callable[[], bool], limit_s: float = LIMIT_S) -> None:
    """Wait for something another process does."""
    deadline = time.monotonic() + limit_s
    while not condition():
        expect(time.monotonic() < deadline, f"within {limit_s:g} s")
        time.sleep(_LOOK_EVERY_S)


def child_processes(pid: int, word: str = "") -> set[int]:
    """The children of a process that have this word in their command line."""
    found = set()
    with suppress(FileNotFoundError, ProcessLookupError):
        for listed in Path(f"/proc/{pid}/task").glob("*/children"):
            for child in listed.read_text().split():
                with suppress(FileNotFoundError, ProcessLookupError):
                    if word in Path(f"/proc/{child}/cmdline").read_text():
                        found.add(int(child))
    return found


def expect(condition: bool, promise: str) -> None:
    """What the server promises.

    Raises:
        RuntimeError: it does not keep it.
    """
    if not condition:
        raise RuntimeError(f"broken promise: {promise}")


def _toml(settings: Mapping[str, Any]) -> str:
    """Sections last; JSON's scalars and lists are TOML."""
    lines = [f"{key} = {json.dumps(value)}" for key, value in settings.items() if not isinstance(value, dict)]
    for name, section in settings.items():
        if isinstance(section, dict):
            lines += [f"[{name}]", *(f"{key} = {json.dumps(value)}" for key, value in section.items())]
    return "\n".join(lines)


def _grey_image() -> str:
    encoded = io.BytesIO()
    Image.new("RGB", (64, 64), "grey").save(encoded, "PNG")
    return f"data:image/png;base64,{base64.b64encode(encoded.getvalue()).decode()}"
