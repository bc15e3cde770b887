"""A database that is away, can only be read, or has no room: nothing fails, and everything goes on by itself."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import psutil
import pytest

from server.bench.throwaway_postgres import Postgres
from server.bench.waiting import LIMIT_S
from tests.harness.live_server import APP, FAST, Deployment, Server, example, fake, until
from tests.harness.outages import (
    filled,
    immutable,
    mounted,
    postgres_read_only,
    postgres_stopped,
    turning_read_only,
)

AWAY_S = 4.0
BACK_WITHIN_S = 15.0
AWAY = " is away; what is running goes on"
SETTINGS = FAST | {
    "generator__renderer": fake("waits_for_a_file"),
    "jobs__min_free_bytes": 0,
    "webhooks__poll_s": 0.05,  # many more rounds fail than there are senders
    "webhooks__concurrency": 4,
}


@dataclass
class Place:
    """Where a server runs, what breaks its database, and whether that can still be read."""

    data_dir: Path
    settings: dict[str, str]
    breaking: Callable[[], AbstractContextManager[None]]
    readable: bool = True
    some_room: bool = False


@pytest.fixture(params=["immutable", "full", "read-only Postgres", "stopped Postgres"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    data_dir = tmp_path / "data"
    with ExitStack() as stack:
        match request.param:
            case "immutable":
                yield Place(data_dir, {}, lambda: immutable(data_dir))
            case "full":
                stack.enter_context(mounted(data_dir, "8m"))
                yield Place(data_dir, {}, lambda: filled(data_dir), some_room=True)
            case kind:
                postgres: Postgres = request.getfixturevalue("postgres")
                url = {"database_url": postgres.new_database()}
                if kind == "read-only Postgres":
                    yield Place(data_dir, url, lambda: postgres_read_only(postgres))
                else:
                    yield Place(data_dir, url, lambda: postgres_stopped(postgres), readable=False)


@pytest.fixture
def hooks() -> Iterator[tuple[str, list[str]]]:
    """A receiver of webhooks: its URL, and the paths that were called."""
    called: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            called.append(self.path)
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        threading.Thread(target=http.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{http.server_address[1]}", called
        http.shutdown()


def test_an_outage_fails_nothing_and_ends_by_itself(place: Place, hooks: tuple[str, list[str]], tmp_path: Path) -> None:
    url, called = hooks
    log = tmp_path / "log"
    with Deployment(place.data_dir, SETTINGS | place.settings, log=log) as deployment:
        server = deployment.serve()
        jobs = [server.submit(webhook=f"{url}/{number}") for number in range(6)]
        until((place.data_dir / "renders").exists)
        pids = {role: server.pid_of(role) for role in ("api", "worker")}
        with place.breaking():
            broken, tries = time.monotonic(), 0
            meanwhile, accepted = deployment.start_api(), list[str]()
            deployment.start_worker("meanwhile")
            # A busy machine starts the two late: all four are to notice it.
            while time.monotonic() - broken < AWAY_S or log.read_text().count(AWAY) < 4:
                assert time.monotonic() - broken < LIMIT_S
                tries += 2
                for api in (server, meanwhile):
                    accepted += _refuses(api, some_room=place.some_room)
                    status = api.http.get(f"/queue/{APP}/requests/{jobs[0]}/status")
                    assert status.status_code == (202 if place.readable else 503), status.text
                    assert api.http.get("/health/live").is_success
                time.sleep(0.1)
            (place.data_dir / "go").touch()
            time.sleep(1)  # the video is made, and cannot be recorded
        back = time.monotonic()
        for api in (server, meanwhile):
            until(lambda api=api: _submits(api), BACK_WITHIN_S)
        until(lambda: server.status(jobs[0])["status"] == "COMPLETED", BACK_WITHIN_S - (time.monotonic() - back))
        assert len(accepted) < tries
        assert {server.finish(job).status_code for job in jobs + accepted} == {200}
        if place.settings or place.data_dir.stat().st_dev == tmp_path.stat().st_dev:  # else the video found no room
            assert not any("Attempt" in message for message in server.messages(jobs[0]))
        until(lambda: {f"/{number}" for number in range(6)} <= set(called))
        assert {role: server.pid_of(role) for role in pids} == pids
        assert all(psutil.Process(pid).is_running() for pid in pids.values())
        until(lambda: log.read_text().count(" is back after ") == log.read_text().count(AWAY) >= 4)
    lines = log.read_text().splitlines()
    for role in ("api", "worker"):
        gone = [line for line in lines if f" {role} " in line and AWAY in line]
        assert len(gone) == 2 or place.some_room, "one line for each process, unless it could write for a moment"
    assert "Traceback" not in log.read_text()
    assert not [line for line in lines if "dbos" in line and " ERROR" in line]
    assert len(lines) < 50


def test_a_volume_that_turns_read_only_stops_no_process(tmp_path: Path) -> None:
    """SQLite's index is a mapped file on it: the kernel ends a process that writes where it may not."""
    disk, log = tmp_path / "data", tmp_path / "log"
    with turning_read_only(disk, tmp_path / "image") as fail, Deployment(disk, SETTINGS, log=log) as deployment:
        server = deployment.serve()
        job = server.submit()
        until((disk / "renders").exists)
        pids = {role: server.pid_of(role) for role in ("api", "worker")}
        fail()
        for _ in range(5):
            assert _refuses(server, some_room=False) == []
            assert server.status(job)["status"] == "IN_PROGRESS"
            time.sleep(0.2)
        until(lambda: log.read_text().count(AWAY) == 2)
        assert {role: server.pid_of(role) for role in pids} == pids
        assert "Traceback" not in log.read_text()


def _refuses(api: Server, *, some_room: bool) -> list[str]:
    """The request that was accepted all the same: a full disk has room when a file in it is removed."""
    answer = api.http.post(f"/queue/{APP}", json=example())
    if some_room and answer.is_success:
        return [answer.json()["request_id"]]
    assert answer.status_code == 503, answer.text
    assert int(answer.headers["retry-after"]) >= 1
    return []


def _submits(api: Server) -> bool:
    answer: httpx.Response = api.http.post(f"/queue/{APP}", json=example())
    return answer.is_success
