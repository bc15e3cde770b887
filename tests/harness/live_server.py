"""Real servers: `hunyuan-custom serve` as a process of its own, on a free port, with a fake generator."""

import os
import re
import signal
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import psutil

from server.fal.data_uri import PREFIX
from server.fal.example import PHOTO
from server.settings import ENV_PREFIX

ROOT = Path(__file__).parents[2]
APP = "fal-ai/hunyuan-custom"


@dataclass
class Server:
    """A running server and the calls the tests make."""

    process: subprocess.Popen[str]
    url: str
    data_dir: Path
    environment: dict[str, str]
    http: httpx.Client = field(init=False)

    def __post_init__(self) -> None:
        authority = self.data_dir / "tls" / "ca.pem"
        verify = ssl.create_default_context(cafile=authority) if authority.exists() else True
        self.http = httpx.Client(base_url=self.url, trust_env=False, timeout=60, verify=verify)

    def submit(self, body: dict[str, Any] | None = None, **headers: str) -> str:
        answer = self.http.post(f"/queue/{APP}", json=body or example(), headers=headers)
        assert answer.status_code == 200, answer.text
        return str(answer.json()["request_id"])

    def status(self, request_id: str, *, logs: bool = False) -> dict[str, Any]:
        answer = self.http.get(f"/queue/{APP}/requests/{request_id}/status", params={"logs": "1"} if logs else {})
        assert answer.status_code in {200, 202}, answer.text
        return dict(answer.json())

    def result(self, request_id: str) -> httpx.Response:
        return self.http.get(f"/queue/{APP}/requests/{request_id}")

    def cancel(self, request_id: str) -> httpx.Response:
        return self.http.put(f"/queue/{APP}/requests/{request_id}/cancel")

    def finish(self, request_id: str, timeout_s: float = 120) -> httpx.Response:
        until(lambda: self.status(request_id)["status"] == "COMPLETED", timeout_s)
        return self.result(request_id)

    def waiting(self) -> int:
        """How many requests wait: the position of one more, which is taken back."""
        probe = self.submit()
        position = self.status(probe)["queue_position"]
        self.cancel(probe)
        return int(position)

    def until_running(self, request_id: str) -> None:
        def runs() -> bool:
            status = self.status(request_id)["status"]
            assert status != "COMPLETED", f"over before it was seen running: {self.result(request_id).text}"
            return status == "IN_PROGRESS"

        until(runs)

    def messages(self, request_id: str) -> list[str]:
        """The lines of a request's log."""
        return [line["message"] for line in self.status(request_id, logs=True).get("logs") or []]

    def api(self) -> psutil.Process:
        """The process that answers."""
        (api,) = [child for child in psutil.Process(self.process.pid).children() if "api" in child.cmdline()]
        return api

    def worker(self) -> dict[str, Any]:
        return dict(self.http.get("/health/ready").json()["workers"][0])

    def stop(self) -> int:
        self.http.close()
        if self.process.stdout is not None:
            self.process.stdout.close()
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(30)
        finally:
            self.process.kill()  # whatever went wrong, no server outlives its test


def until(condition: Callable[[], bool], timeout_s: float = 60) -> None:
    """Wait for something another process does; a bounded poll, since it sends us no event.

    The limit is for a machine with much else to do; where a test is about time it says its own.
    """
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.05)


def photo_uri() -> str:
    import base64

    return f"{PREFIX}image/jpeg;base64,{base64.b64encode(PHOTO.read_bytes()).decode()}"


def example(**changes: Any) -> dict[str, Any]:
    """The smallest valid request, changed."""
    return {"prompt": "a colour", "image_url": photo_uri(), "num_inference_steps": 10, "num_frames": 81} | changes


def launch(
    data_dir: Path,
    *,
    ready: bool = True,
    renderer: str = "by_prompt",
    root: Path = ROOT,
    own_group: bool = False,
    options: Sequence[str] = (),
    **settings: Any,
) -> Server:
    """Start `serve` of the packages at `root` with command-line options; settings as `section__key=value`."""
    data_dir.mkdir(exist_ok=True)
    environment = {key: value for key, value in os.environ.items() if not key.startswith(ENV_PREFIX)}
    environment |= {f"{ENV_PREFIX}{key.upper()}": str(value) for key, value in settings.items()}
    environment[f"{ENV_PREFIX}GENERATOR__RENDERER"] = f"tests.fakes.{renderer}:Renderer"
    environment["PYTHONPATH"] = str(root)
    command = [sys.executable, "-m", "server", "serve", "--port", "0", "--data-dir", str(data_dir), *options]
    process = subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, text=True, cwd=data_dir, start_new_session=own_group
    )
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        found = re.search(r"https?://\S+", line)
        assert found, f"serve said {line!r}"
        server = Server(process, found[0], data_dir, environment)
        if ready:
            until(lambda: server.http.get("/health/ready").is_success)
    except BaseException:
        process.kill()
        raise
    return server


FAST: dict[str, Any] = {
    "jobs__engine_poll_s": 0.3,
    "jobs__cancel_poll_s": 0.05,
    "jobs__heartbeat_s": 0.3,
    "generator__restart_delay_s": 0.05,
    "generator__stall_timeout_s": 3,
    "generator__cancel_grace_s": 1,
    "api__keys_reload_s": 0.2,
    "limits__posts_per_s": 1e6,
    "limits__posts_burst": 10**6,
}

# For the real renderer with a small model; nothing hangs here, and a busy machine must not look as if it did.
ON_CPU = FAST | {
    "generator__device": "cpu",
    "generator__dtype": "float32",
    "generator__torch_threads": 1,
    "generator__render_divisor": 8,
    "generator__stall_timeout_s": 60,
}

# For what is refused after a while, and what is tried again.
SHORT_LIMITS: dict[str, Any] = {
    "api__header_timeout_s": 1,
    "api__body_idle_s": 0.6,
    "api__body_timeout_s": 1.5,
    "api__max_body_bytes": 1_000_000,
    "api__body_memory_bytes": 1_000_000,
    "image__max_bytes": 200_000,
    "image__total_timeout_s": 1.5,
    "webhooks__retry_delays_s": "[0.1, 0.1, 0.1]",
    "webhooks__jitter": 0,
    "webhooks__poll_s": 0.2,
    "webhooks__timeout_s": 1,
    "webhooks__retry_timeout_s": 1,
}
