"""Calls to a server in containers, through its published port, and the key for them."""

from collections.abc import Sequence
from typing import Any

import httpx

from server.bench.waiting import until
from server.fal.schemas import ENDPOINT
from tests.containers.engine import Container


class FalCalls:
    """As a client without fal's library would call; survives that the server is away."""

    def __init__(self, port: int | str, key: str) -> None:
        self.http = httpx.Client(
            base_url=f"http://127.0.0.1:{port}", headers={"Authorization": f"Key {key}"}, timeout=300
        )

    def is_ready(self) -> bool:
        """Whether a worker has its model loaded."""
        try:
            return self.http.get("/health/ready").status_code == httpx.codes.OK
        except httpx.TransportError:
            return False

    def submit(self, body: dict[str, Any]) -> str:
        """The request id."""
        answer = self.http.post(f"/queue/{ENDPOINT}", json=body)
        answer.raise_for_status()
        return str(answer.json()["request_id"])

    def status(self, request_id: str) -> dict[str, Any]:
        """With the log; empty while there is no server."""
        try:
            answer = self.http.get(f"/queue/{ENDPOINT}/requests/{request_id}/status", params={"logs": 1})
        except httpx.TransportError:
            return {}
        return dict(answer.json()) if answer.is_success else {}

    def is_in(self, request_id: str, status: str) -> bool:
        """Whether the request is IN_QUEUE, IN_PROGRESS or COMPLETED."""
        return self.status(request_id).get("status") == status

    def result(self, request_id: str) -> httpx.Response:
        """The answer of the result route."""
        return self.http.get(f"/queue/{ENDPOINT}/requests/{request_id}")


def first_key(containers: Sequence[Container]) -> str:
    """The key that the server printed at its first start."""
    found: list[str] = []

    def is_printed() -> bool:
        lines = [line for container in containers for line in container.logs().splitlines()]
        found.extend(line.split()[-1] for line in lines if line.startswith("First key"))
        return bool(found)

    until(is_printed, every_s=0.5)
    return found[0]
