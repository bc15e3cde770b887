"""What an outage of the database or of the object store costs: a job's video is made meanwhile and published after it.

Both are real servers on loopback; the bucket keeps whole objects and can say that it is away.
"""

import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from importlib.util import find_spec
from threading import Event
from typing import Any, Final

import httpx

from server.bench.loopback import serving
from server.bench.processes import BenchServer, expect, running_server, until
from server.bench.throwaway_postgres import Postgres, find_binaries

DATABASE_AWAY_S: Final = 10.0
STORE_AWAY_S: Final = 5.0
_STEPS: Final = 10  # over while it is away


def database_away(settings: dict[str, Any]) -> Iterator[float]:
    """Seconds from when the database is back until the result is there. Nothing where Postgres is not installed."""
    binaries = find_binaries()
    if binaries is None:
        return
    postgres = Postgres(binaries)
    try:
        postgres.start()
        with running_server({**settings, "database_url": postgres.new_database()}) as server:
            job = _rendering(server)
            postgres.stop()
            time.sleep(DATABASE_AWAY_S)
            postgres.start()
            yield _until_published(server, job)
    finally:
        postgres.remove()


def store_away(settings: dict[str, Any]) -> Iterator[float]:
    """Seconds from when the store is back until the result is there. Nothing without the extra `cluster`."""
    if find_spec("obstore") is None:
        return
    with _bucket() as (url, away):
        place = {"endpoint": url, "access_key_id": "id", "secret_access_key": "secret"}
        with running_server({**settings, "storage_url": "s3://bench/videos", "object_storage": place}) as server:
            job = _rendering(server)
            away.set()
            time.sleep(STORE_AWAY_S)
            away.clear()
            yield _until_published(server, job)


def _rendering(server: BenchServer) -> str:
    job = server.client.submit(_STEPS)
    server.client.until_step(job)
    return job


def _until_published(server: BenchServer, job: str) -> float:
    back = time.perf_counter()
    until(lambda: _status(server, job) == "COMPLETED")
    seconds = time.perf_counter() - back
    expect(server.client.result(job).status_code == httpx.codes.OK, "a job outlives an outage")
    attempts = [line for line in server.client.messages(job) if line.startswith("Attempt")]
    expect(not attempts, "an outage costs no second render")
    return seconds


def _status(server: BenchServer, job: str) -> str | None:
    return server.client.status(job).get("status")  # none in a 503


@contextmanager
def _bucket() -> Iterator[tuple[str, Event]]:
    objects: dict[str, bytes] = {}
    away = Event()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            """GET and HEAD."""
            found = objects.get(self.path)
            self._answer(httpx.codes.NOT_FOUND if found is None else httpx.codes.OK, found or b"")

        do_HEAD = do_GET  # noqa: N815 - the name is the library's

        def do_PUT(self) -> None:
            """Keep an object."""
            body = self._body()
            if not away.is_set():
                objects[self.path] = body
            self._answer(httpx.codes.OK)

        def do_POST(self) -> None:
            """Delete some."""
            keys = re.findall(rb"<Key>(.*?)</Key>", self._body())
            deleted = b"".join(b"<Deleted><Key>" + key + b"</Key></Deleted>" for key in keys)
            self._answer(httpx.codes.OK, b"<DeleteResult>" + deleted + b"</DeleteResult>")

        def _body(self) -> bytes:
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))

        def _answer(self, status: int, body: bytes = b"") -> None:
            if away.is_set():
                status, body = httpx.codes.INTERNAL_SERVER_ERROR, b""
            self.send_response(status)
            self.send_header("ETag", '"e"')
            self.send_header("Last-Modified", "Wed, 21 Oct 2015 07:28:00 GMT")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

    with serving(Handler) as url:
        yield url, away
