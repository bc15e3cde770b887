"""A running server and the calls that benchmarks and tests make."""

import signal
import ssl
import subprocess
from pathlib import Path
from typing import Any

import httpx

from server.bench.sample_request import example
from server.bench.waiting import CLOSELY_S, LIMIT_S, child_processes, expect, until
from server.fal.schemas import ENDPOINT


class LiveServer:
    """An API that answers at `url`, the process that was started for it, and a client."""

    def __init__(self, process: subprocess.Popen[str], url: str, *, data_dir: Path) -> None:
        self.process = process
        self.url = url
        self.data_dir = data_dir
        self.http = self._connect()

    def _connect(self) -> httpx.Client:
        authority = self.data_dir / "tls" / "ca.pem"
        verify = ssl.create_default_context(cafile=authority) if authority.exists() else True
        return httpx.Client(base_url=self.url, trust_env=False, timeout=LIMIT_S, verify=verify)

    def reconnect(self) -> None:
        """Kept-alive connections to an API that was killed are of no use."""
        self.http.close()
        self.http = self._connect()

    def submit(self, body: dict[str, Any] | None = None, *, webhook: str = "", **headers: str) -> str:
        """Put a request into the queue; returns its id."""
        query = {"fal_webhook": webhook} if webhook else {}
        answer = self.http.post(f"/queue/{ENDPOINT}", json=body or example(), headers=headers, params=query)
        expect(answer.status_code == httpx.codes.OK, f"a submit is accepted, not {answer.status_code} {answer.text}")
        return str(answer.json()["request_id"])

    def status(self, request_id: str, *, logs: bool = False) -> dict[str, Any]:
        """What a client that polls is told."""
        answer = self._status(request_id, logs=logs)
        expect(answer.is_success, f"a request has a status, not {answer.status_code} {answer.text}")
        return dict(answer.json())

    def _status(self, request_id: str, *, logs: bool) -> httpx.Response:
        path = f"/queue/{ENDPOINT}/requests/{request_id}/status"
        return self.http.get(path, params={"logs": "1"} if logs else {})

    def result(self, request_id: str) -> httpx.Response:
        """What a request ended with."""
        return self.http.get(f"/queue/{ENDPOINT}/requests/{request_id}")

    def cancel(self, request_id: str) -> httpx.Response:
        """Ask for the end of a request."""
        return self.http.put(f"/queue/{ENDPOINT}/requests/{request_id}/cancel")

    def finish(self, request_id: str, timeout_s: float = 2 * LIMIT_S) -> httpx.Response:
        """Wait for the end of a request; returns its result."""
        until(lambda: bool(self.status(request_id)["status"] == "COMPLETED"), timeout_s)
        return self.result(request_id)

    def waiting(self) -> int:
        """How many requests wait: the position of one more, which is cancelled."""
        probe = self.submit()
        position = self.status(probe)["queue_position"]
        self.cancel(probe)
        return int(position)

    def messages(self, request_id: str) -> list[str]:
        """The lines of a request's log."""
        return [line["message"] for line in self.status(request_id, logs=True).get("logs") or []]

    def until_running(self, request_id: str) -> None:
        """Wait for the start of a request that is not to end at once."""

        def runs() -> bool:
            status = self.status(request_id)["status"]
            expect(status != "COMPLETED", "a request is seen running before it ends")
            return bool(status == "IN_PROGRESS")

        until(runs, every_s=CLOSELY_S)

    def until_completed(self, request_id: str) -> None:
        """Wait for the end of a request, through answers that say that the database is away."""
        until(lambda: self._status(request_id, logs=False).json().get("status") == "COMPLETED", every_s=CLOSELY_S)

    def until_step(self, request_id: str, *, after: str = "") -> None:
        """Wait for the third denoising step, or for the first one after a certain log line."""
        until(lambda: self._steps(request_id, after) >= (1 if after else 3), every_s=CLOSELY_S)

    def _steps(self, request_id: str, after: str) -> int:
        messages = self.messages(request_id)
        if after:
            messages = messages[messages.index(after) :] if after in messages else []
        return sum(message.startswith("Denoising") for message in messages)

    def pid_of(self, role: str) -> int:
        """The process id of the `api` or the `worker` that `serve` runs, once there is one."""
        until(lambda: bool(child_processes(self.process.pid, role)))
        return next(iter(child_processes(self.process.pid, role)))

    def worker(self) -> dict[str, Any]:
        """What the first worker says about itself."""
        return dict(self.http.get("/health/ready").json()["workers"][0])

    def until_heard_again(self, times: int = 1) -> None:
        """Until the first worker has been heard of so often: it reads that it is to drain with one heartbeat, and has
        stopped taking jobs before the next."""
        for _ in range(times):
            last = self.worker()["heartbeat_at"]
            until(lambda last=last: self.worker()["heartbeat_at"] > last)  # type: ignore[misc]

    def until_ready_again(self) -> None:
        """After a request that ended its generator, which the workers' rows do not say yet."""
        self.until_heard_again(2)
        until(lambda: self.http.get("/health/ready").is_success)

    def stop(self) -> int:
        """End it as a service manager does; returns its exit code."""
        self.http.close()
        if self.process.stdout is not None:
            self.process.stdout.close()
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(LIMIT_S)
        finally:
            self.process.kill()  # if it did not end by itself
