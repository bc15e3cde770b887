"""Many tiny jobs while processes are killed at random, and then the count: every job must be there exactly once."""

import os
import random
import signal
import sqlite3
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any, Final

import httpx

from server.bench.deployment import temporary_server
from server.bench.live_server import LiveServer
from server.bench.loopback import serving
from server.bench.sample_request import example, grey_uri
from server.bench.waiting import CLOSELY_S, child_processes, until

_SETTINGS: Final[dict[str, Any]] = {
    "generator__renderer": "server.bench.sleeping_renderer:HastyRenderer",
    "generator__restart_delay_s": 0.1,
    "jobs__min_free_bytes": 0,
    "jobs__max_attempts": 1000,
    "jobs__engine_poll_s": 0.05,
    "jobs__reconcile_s": 5,
    "limits__max_queue": 100_000,
    "limits__posts_per_s": 1e6,
    "limits__posts_burst": 1_000_000,
    "webhooks__retry_delays_s": [0.5] * 40,
    "webhooks__poll_s": 0.1,
}
_LOOK_EVERY_S: Final = 0.05
_PAUSE_S: Final = (0.0, 1.5)  # from when all is up to the next kill
_VICTIMS: Final = ("generator", "generator", "worker", "api")
_STEPS: Final = 10
_CHAOS_LIMIT_S: Final = 600.0


@dataclass(frozen=True, slots=True)
class Chaos:
    """What came out."""

    jobs: int
    seconds: float
    kills: Counter[str]
    lost: int
    duplicated: int
    repeated_webhooks: int  # the same words again: their delivery had not been noted when the worker was killed

    @property
    def passed(self) -> bool:
        """Whether nothing was lost and nothing was there twice."""
        return self.lost == self.duplicated == 0

    def lines(self) -> list[str]:
        """For people."""
        killed = ", ".join(f"{number} x {name}" for name, number in sorted(self.kills.items())) or "none"
        return [
            f"chaos: {self.jobs} jobs in {self.seconds:.0f} s; killed: {killed}",
            f"lost {self.lost}, duplicated {self.duplicated} (one result, one file, one webhook each); "
            f"webhooks sent again after a kill: {self.repeated_webhooks}",
        ]


def run_chaos(jobs: int, *, seed: int = 0, killing_s: float = 30.0) -> Chaos:
    """Submit the jobs one by one, kill until the last one is over or the time is, count."""
    started = time.monotonic()
    with _receiver() as (webhook, received), temporary_server(_SETTINGS) as server:
        over = threading.Event()
        kills: Counter[str] = Counter()
        killer = threading.Thread(target=_kill, args=(server, over, kills, seed, killing_s))
        killer.start()
        try:
            ids = [_submit(server, webhook) for _ in range(jobs)]
            until(lambda: _count_over(server.data_dir) >= jobs, _CHAOS_LIMIT_S, every_s=CLOSELY_S)
        finally:
            over.set()
            killer.join()
        server.reconnect()
        until(lambda: set(received) >= set(ids))
        lost, duplicated, repeated = _count(server, ids, received)
    return Chaos(jobs, time.monotonic() - started, kills, lost, duplicated, repeated)


def _submit(server: LiveServer, webhook: str) -> str:
    """As clients should: with a key of its own, and again when the answer is lost."""
    key = os.urandom(16).hex()
    body = example(image_url=grey_uri(), num_inference_steps=_STEPS)
    while True:
        try:
            return server.submit(body, webhook=webhook, **{"Idempotency-Key": key})
        except httpx.TransportError:
            server.reconnect()


def _kill(server: LiveServer, over: threading.Event, kills: Counter[str], seed: int, killing_s: float) -> None:
    """Every time all is up again, one process more, after a while."""
    chance = random.Random(seed)  # noqa: S311 - no secret
    deadline = time.monotonic() + killing_s
    while not over.wait(_LOOK_EVERY_S) and time.monotonic() < deadline:
        pids = _processes(server)
        if not set(_VICTIMS) <= set(pids) or over.wait(chance.uniform(*_PAUSE_S)):  # some are being replaced
            continue
        victim = chance.choice(_VICTIMS)
        with suppress(ProcessLookupError):
            os.kill(pids[victim], signal.SIGKILL)
            kills[victim] += 1


def _processes(server: LiveServer) -> dict[str, int]:
    """Those that run, by name."""
    found = {name: child_processes(server.process.pid, name) for name in ("api", "worker")}
    generators = [child_processes(worker, "server.generator.child.process") for worker in found["worker"]]
    found["generator"] = set().union(*generators)
    return {name: pid for name, pids in found.items() for pid in pids}


def _count_over(folder: Path) -> int:
    return int(_query(folder, "SELECT count(*) FROM request WHERE status = 'COMPLETED'")[0][0])


def _query(folder: Path, sql: str) -> list[tuple[Any, ...]]:
    with closing(sqlite3.connect(folder / "hunyuan-custom.sqlite", timeout=10)) as connection:
        return connection.execute(sql).fetchall()


def _count(server: LiveServer, ids: list[str], received: dict[str, list[bytes]]) -> tuple[int, int, int]:
    """Lost and duplicated jobs, and webhooks that came again."""
    files = Counter(path.read_bytes()[:36].decode() for path in (server.data_dir / "files").rglob("*.mp4"))
    rows = Counter(request_id for (request_id,) in _query(server.data_dir, "SELECT id FROM request"))
    lost = duplicated = repeated = 0
    for request_id in ids:
        result = server.result(request_id)
        url = result.json()["video"]["url"] if result.is_success else None
        whole = url is not None and server.http.get(url).content[:36].decode() == request_id
        lost += not whole or not received.get(request_id)
        duplicated += files[request_id] > 1 or len(set(received.get(request_id, []))) > 1
        repeated += len(received.get(request_id, [])) - 1
    unknown = (set(rows) | set(files) | set(received)) - set(ids)  # made by a submit that was answered twice
    return lost, duplicated + len(unknown) + (len(ids) - len(set(ids))), repeated


@contextmanager
def _receiver() -> Iterator[tuple[str, dict[str, list[bytes]]]]:
    """Takes webhooks; what came for which request."""
    received: dict[str, list[bytes]] = {}

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            """Take one."""
            body = self.rfile.read(int(self.headers["Content-Length"]))
            received.setdefault(self.headers["X-Fal-Webhook-Request-Id"], []).append(body)
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

    with serving(Handler) as url:
        yield f"{url}/", received
