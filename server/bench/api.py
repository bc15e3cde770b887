"""`hunyuan-custom bench api`: the load this API carries on this machine, through real processes on loopback.

The generator sleeps, the load generator runs on the same cores. Every line of the table has its goal beside it.
"""

import asyncio
import itertools
import json
import os
import random
import secrets
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from statistics import median
from typing import Any, Final

import sqlalchemy as sa
import typer
import uvicorn

from server.bench.deployment import temporary_server
from server.bench.http_client import Connection, Latencies, closed_loop, get, pollers, post
from server.bench.live_server import LiveServer
from server.bench.sample_request import grey_uri
from server.bench.sleeping_renderer import BLOCKS_PER_STEP, SleepingRenderer
from server.db.connection import create_engine
from server.db.tables import request_table
from server.fal.schemas import ENDPOINT
from server.jobs.job import LOCAL_OWNER
from server.parent_death import tied
from server.storage.local import LocalStorage

_SETTINGS: Final[dict[str, Any]] = {
    "generator__renderer": "server.bench.sleeping_renderer:SleepingRenderer",
    "jobs__min_free_bytes": 0,
    "jobs__reconcile_s": 86400,
    "limits__max_queue": 1_000_000,
    "limits__posts_per_s": 1000,
    "limits__posts_burst": 1000,
}
_QUEUE = f"/queue/{ENDPOINT}"
_FILE_BYTES = 64 * 2**20
_PART_BYTES = 8 * 2**20
_STEPS = 30
_JOB_S = _STEPS * BLOCKS_PER_STEP * SleepingRenderer.block_s


@dataclass(frozen=True, slots=True)
class Line:
    """One line of the table."""

    name: str
    goal: str
    measured: str
    met: bool

    def row(self) -> str:
        """As text."""
        return f"{'ok  ' if self.met else 'MISS'} {self.name:<46} {self.goal:<26} {self.measured}"


class ApiBench:
    """A running server and the phases of the measurement."""

    def __init__(self, server: LiveServer, *, seconds: float) -> None:
        self.url = server.url
        self._server = server
        self._data_dir = server.data_dir
        self._seconds = seconds
        self._peak_rss = 0

    def run(self) -> Iterator[Line]:
        """All phases, the queue growing from one to the next."""
        for phase in (self._speed, self._submits, self._pollers, self._streams, self._downloads, self._deep_queue):
            yield _in_event_loop(phase())
            self._peak_rss = max(self._peak_rss, _rss(self._server.pid_of("api")))
        yield Line("memory of the API process", "<= 200 MB", f"{self._peak_rss / 1e6:.0f} MB", self._peak_rss <= 200e6)

    async def _speed(self) -> Line:
        """Of a request that waits: its position is counted for every answer."""
        seconds = self._seconds / 30
        ahead = int(10 * seconds / _JOB_S) + 5
        request_id = [await self._submit() for _ in range(ahead)][-1]
        status = get(f"{_QUEUE}/requests/{request_id}/status?logs=0")
        with _bare_api() as bare_url:
            bare, ours = [], []
            for _ in range(5):  # in turns, so that a busy moment hits both
                bare.append(await closed_loop(bare_url, get("/bare"), connections=16, seconds=seconds))
                ours.append(await closed_loop(self.url, status, connections=16, seconds=seconds))
        share = median(ours) / median(bare)
        rates = f"{median(ours):.0f}/s, bare {median(bare):.0f}/s: {100 * share:.0f} %"
        return Line("status GET, waiting, against a bare JSON route", ">= 50 %", rates, share >= 0.5)

    async def _submits(self) -> Line:
        """Submits at a fixed rate, each on its due time; then every id is asked for."""
        rate, accepted, found = 20, list[str](), Latencies()
        idle = list[Connection]()
        begin = time.monotonic()

        async def one(number: int) -> None:
            await asyncio.sleep(max(0.0, begin + number / rate - time.monotonic()))
            idle[:] = [connection for connection in idle if not connection.closed]
            connection = idle.pop() if idle else await Connection.open(self.url)
            asked = time.monotonic()
            status, answer = await connection.request(post(_QUEUE, _body()))
            found.seconds.append(time.monotonic() - asked)
            found.failed += status != 200
            if status == 200:
                accepted.append(json.loads(answer)["request_id"])
            idle.append(connection)

        await asyncio.gather(*(one(number) for number in range(int(rate * self._seconds))))
        took = time.monotonic() - begin
        lost, asking = 0, await Connection.open(self.url)
        for request_id in accepted:
            status, _ = await asking.request(get(f"{_QUEUE}/requests/{request_id}/status"))
            lost += status not in {200, 202}
        lost += found.failed
        words = f"{len(accepted)} in {took:.0f} s, {lost} lost, {found.words()}"
        return Line(f"{rate} submits/s for {self._seconds:.0f} s", "none lost", words, lost == 0)

    async def _pollers(self) -> Line:
        """Each polls a request of its own, as fal's Python client does, logs included."""
        ids = [await self._submit() for _ in range(100)]
        requests = itertools.cycle([get(f"{_QUEUE}/requests/{request_id}/status?logs=true") for request_id in ids])
        found = await pollers(self.url, lambda: next(requests), count=100, every_s=0.1, seconds=self._seconds / 3)
        return Line("100 pollers at 0.1 s", "p99 <= 50 ms", found.words(), found.within(0.05))

    async def _streams(self) -> Line:
        """All on the running job: every batch of its log becomes 500 events at once."""
        running = await self._running()
        found = Latencies()

        async def follow() -> None:
            nonlocal running
            reader, writer = await asyncio.open_connection("127.0.0.1", int(self.url.rpartition(":")[2]))
            writer.write(get(f"{_QUEUE}/requests/{running}/status/stream?logs=1"))
            if b" 200 " not in await reader.readline():
                raise ConnectionError("no stream")
            first, body = True, {"status": ""}
            while (line := await reader.readline()) not in {b"", b"0\r\n"}:
                if line.startswith(b"data: "):
                    body = json.loads(line[6:])
                    if (logs := body.get("logs")) and not first:
                        sent = datetime.fromisoformat(logs[-1]["timestamp"]).timestamp()
                        found.seconds.append(time.time() - sent)
                    first = False
            writer.close()
            if body["status"] != "COMPLETED":
                raise ConnectionError("the stream broke off")

        begin = time.monotonic()
        while time.monotonic() - begin < self._seconds / 3:
            results = await asyncio.gather(*(follow() for _ in range(500)), return_exceptions=True)
            found.failed += sum(isinstance(result, BaseException) for result in results)
            running = await self._running()
        return Line("500 event streams, from commit to client", "p99 <= 250 ms", found.words(), found.within(0.25))

    async def _downloads(self) -> Line:
        """Random ranges of one file, each compared with the bytes on disk."""
        content = secrets.token_bytes(_FILE_BYTES)
        key = LocalStorage.new_key("files", "bench.mp4")
        LocalStorage(self._data_dir).put_bytes(content, key)
        wrong, received, until = [0], [0], time.monotonic() + self._seconds / 4

        def download(seed: int) -> None:
            chosen = random.Random(seed)  # noqa: S311 - a load, not a secret
            while time.monotonic() < until:
                start = chosen.randrange(_FILE_BYTES - _PART_BYTES)
                part = _read_range(self.url, key, start, _PART_BYTES)
                wrong[0] += part != content[start : start + _PART_BYTES]
                received[0] += len(part)

        begin = time.monotonic()
        threads = [threading.Thread(target=download, args=(seed,)) for seed in range(16)]
        for thread in threads:
            thread.start()
        await asyncio.gather(*(asyncio.to_thread(thread.join) for thread in threads))
        rate = received[0] / (time.monotonic() - begin) / 1e6
        words = f"{rate:.0f} MB/s, {wrong[0]} wrong ranges"
        return Line("16 parallel downloads", ">= 150 MB/s, ranges right", words, rate >= 150 and not wrong[0])

    async def _deep_queue(self) -> Line:
        """The rows are written directly: what counts is how the API reads them."""
        last = 10_000
        rows = [_waiting_row(f"bench-{number:030d}", queue_order=10**6 + number) for number in range(last)]
        database = create_engine(f"sqlite:///{self._data_dir / 'hunyuan-custom.sqlite'}")
        with database.begin() as transaction:
            transaction.execute(sa.insert(request_table), rows)
        database.dispose()
        chosen = random.Random(0)  # noqa: S311

        def next_request() -> bytes:
            return get(f"{_QUEUE}/requests/{rows[chosen.randrange(last)]['id']}/status")

        found = await pollers(self.url, next_request, count=100, every_s=0.1, seconds=self._seconds / 3)
        return Line("10,000 waiting, 100 pollers at 0.1 s", "p99 <= 100 ms", found.words(), found.within(0.1))

    async def _submit(self) -> str:
        connection = await Connection.open(self.url)
        _, answer = await connection.request(post(_QUEUE, _body()))
        connection.close()
        return str(json.loads(answer)["request_id"])

    async def _running(self) -> str:
        """The id of a job that has just begun."""
        database = create_engine(f"sqlite:///{self._data_dir / 'hunyuan-custom.sqlite'}")
        query = sa.select(request_table.c.id).where(request_table.c.status == "IN_PROGRESS")
        newest = query.order_by(request_table.c.started_at.desc()).limit(1)
        before = found = None
        while found is None or before is None or found == before:
            with database.connect() as connection:
                found = connection.execute(newest).scalar_one_or_none()
            before = before or found
            await asyncio.sleep(0.02)
        database.dispose()
        return str(found)


def bench_api(*, seconds: float) -> bool:
    """Run all phases and print the table; whether every goal was met. `seconds` is the length of the submit phase."""
    with temporary_server(_SETTINGS) as server:
        typer.echo(f"{os.cpu_count()} cores, load average before: {os.getloadavg()[0]:.1f}; queue and rate limits off")
        met = True
        for line in ApiBench(server, seconds=seconds).run():
            typer.echo(line.row())
            met = met and line.met
    return met


def _in_event_loop(phase: Coroutine[Any, Any, Line]) -> Line:
    with asyncio.Runner(loop_factory=uvicorn.Config("none").get_loop_factory()) as runner:
        return runner.run(phase)


@contextmanager
def _bare_api() -> Iterator[str]:
    with socket.create_server(("127.0.0.1", 0), backlog=2048) as listener:
        fd, port = listener.fileno(), listener.getsockname()[1]
        process = subprocess.Popen(tied([sys.executable, "-m", "server.bench.bare_api", str(fd)]), pass_fds=[fd])
        try:
            yield f"http://127.0.0.1:{port}"
        finally:
            process.kill()
            process.wait()


def _body() -> bytes:
    return json.dumps({"prompt": "bench", "image_url": grey_uri(), "num_inference_steps": _STEPS}).encode()


def _waiting_row(request_id: str, *, queue_order: int) -> dict[str, object]:
    return {
        "id": request_id,
        "owner": LOCAL_OWNER,
        "status": "IN_QUEUE",
        "priority": 0,
        "queue_order": queue_order,
        "input_json": "{}",
        "seed": "1",
        "base_url": "http://127.0.0.1",
        "created_at": time.time(),
    }


def _read_range(url: str, key: str, start: int, length: int) -> bytes:
    host, _, port = url.removeprefix("http://").partition(":")
    with socket.create_connection((host, int(port))) as connection:
        ask = (
            f"GET /{key} HTTP/1.1\r\nHost: {host}\r\nRange: bytes={start}-{start + length - 1}\r\nConnection: close\r\n"
        )
        connection.sendall(f"{ask}\r\n".encode())
        received = bytearray()
        while part := connection.recv(2**18):
            received += part
    head, _, body = received.partition(b"\r\n\r\n")
    expected = f"bytes {start}-{start + length - 1}/{_FILE_BYTES}".encode()
    is_this_part = head.startswith(b"HTTP/1.1 206 ") and expected in head
    return bytes(body) if is_this_part else b""


def _rss(pid: int) -> int:
    """Bytes of memory a process has at most held."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    return 0
