"""The status stream: one event per change, resumable, and an end."""

import asyncio
import json
import os
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import httpx
import psutil
from starlette.types import Message

from server.api.event_stream import EventResponse, Tail, Watch, status_events
from server.jobs.job import LogLine, Status
from server.jobs.status_reads import JobState
from tests.harness.live_server import APP, Server, example, until

Event = tuple[int | None, dict[str, Any]]


def events(server: Server, request_id: str, *, logs: bool = True, **headers: str) -> Iterator[Event]:
    """The events as they come."""
    url = f"/queue/{APP}/requests/{request_id}/status/stream"
    with server.http.stream("GET", url, params={"logs": "1"} if logs else {}, headers=headers) as answer:
        assert answer.status_code == 200
        assert answer.headers["content-type"].startswith("text/event-stream")
        assert answer.headers["x-fal-request-id"] == request_id
        text = ""
        for chunk in answer.iter_raw():
            assert chunk.isascii()
            text += chunk.decode()
            while "\n\n" in text:
                block, _, text = text.partition("\n\n")
                fields = dict(line.split(": ", 1) for line in block.splitlines())
                if "data" in fields:
                    yield int(fields["id"]) if "id" in fields else None, json.loads(fields["data"])


def test_a_stream_tells_everything_once_and_ends(server: Server) -> None:
    blocker = server.submit(example(prompt="WORKS_SLOWLY"))
    server.until_running(blocker)
    request_id = server.submit()
    seen = []
    for event in events(server, request_id, Accept="application/json"):
        seen.append(event)
        if len(seen) == 1:
            server.cancel(blocker)
    statuses = [body["status"] for _, body in seen]
    assert statuses[0] == "IN_QUEUE"
    assert statuses[-1] == "COMPLETED"
    assert statuses.count("COMPLETED") == 1
    assert seen[0][1]["queue_position"] == 0
    told = [line for _, body in seen for line in body.get("logs") or []]
    assert told == server.status(request_id, logs=True)["logs"]
    assert seen[-1][1] | {"logs": told} == server.status(request_id, logs=True)


def test_without_logs_there_are_none(server: Server) -> None:
    request_id = server.submit()
    seen = list(events(server, request_id, logs=False))
    assert all(body.get("logs") is None and event_id is None for event_id, body in seen)
    assert seen[-1][1]["status"] == "COMPLETED"


def test_a_stream_is_resumed_behind_its_last_event(server: Server) -> None:
    request_id = server.submit()
    first = []
    for event in events(server, request_id):
        first.append(event)
        if event[1].get("logs"):
            break
    rest = list(events(server, request_id, **{"Last-Event-ID": str(first[-1][0])}))
    told = [line for _, body in first + rest for line in body.get("logs") or []]
    assert told == server.status(request_id, logs=True)["logs"]


def test_an_unreadable_last_event_id_starts_from_the_beginning(server: Server) -> None:
    request_id = server.submit()
    server.finish(request_id)
    for last in ("", "x", "-1", "9" * 400):
        ((_, body),) = events(server, request_id, **{"Last-Event-ID": last})
        assert body == server.status(request_id, logs=True)


def test_an_unknown_request_has_no_stream(server: Server) -> None:
    answer = server.http.get(f"/queue/{APP}/requests/nobody/status/stream")
    assert (answer.status_code, answer.json()["status"]) == (404, "NOT_FOUND")


def test_a_stopping_api_ends_streams_and_sync_runs_and_loses_no_job(server: Server) -> None:
    request_id = server.submit(example(prompt="WORKS_SLOWLY"))
    server.until_running(request_id)
    callers = ThreadPoolExecutor(2)
    sync, keyed = (
        callers.submit(httpx.post, f"{server.url}/run/{APP}", json=example(), headers=headers, timeout=60)
        for headers in ({}, {"Idempotency-Key": "outlives-the-api"})
    )
    until(lambda: server.waiting() == 2)
    api = psutil.Process(server.pid_of("api"))
    seen = []
    for event in events(server, request_id):
        seen.append(event)
        if len(seen) == 2:
            os.kill(api.pid, signal.SIGTERM)
    assert seen[-1][1]["status"] == "IN_PROGRESS"
    until(lambda: not psutil.pid_exists(api.pid) or api.status() == psutil.STATUS_ZOMBIE)
    resumed = events(server, request_id, **{"Last-Event-ID": str(seen[-1][0])})
    _, body = next(resumed)
    known = [line["message"] for _, earlier in seen for line in earlier["logs"]]
    known += [line["message"] for line in body["logs"]]
    server.cancel(request_id)
    rest = [later for _, later in resumed]
    assert rest[-1]["status"] == "COMPLETED"
    known += [line["message"] for later in rest for line in later["logs"]]
    told = [line["message"] for line in server.status(request_id, logs=True)["logs"]]
    assert known == told, "every line once"

    for call, end in ((sync, 499), (keyed, 200)):
        answer = call.result()
        assert (answer.status_code, answer.json()["error_type"]) == (503, "runner_disconnected")
        assert server.finish(answer.headers["x-fal-request-id"]).status_code == end, "who can come back finds it"


class _Reads:
    """A database that counts its queries and fails when told to."""

    def __init__(self) -> None:
        self.queries = 0
        self.fails = False
        self.state = JobState("a", 1, Status.IN_PROGRESS, 0, "http://h", None, None, None)
        self.lines: list[LogLine] = []

    async def watched(self, after: dict[str, int]) -> dict[str, tuple[JobState, list[LogLine]]]:
        self.queries += 1
        if self.fails:
            raise OSError("database is away")
        return {"a": (self.state, [line for line in self.lines if line.id > after["a"]])} if "a" in after else {}


def test_five_hundred_watchers_cost_one_query_per_tick() -> None:
    async def scenario() -> None:
        reads = _Reads()
        tail = Tail(reads, poll_s=0.01)  # type: ignore[arg-type]

        async def follow() -> list[str]:
            with tail.watch("a", after=0) as watch:
                got: list[str] = []
                while (update := await watch.next()) is not None and update.state.status is Status.IN_PROGRESS:
                    got += [line.message for line in update.lines]
                return got

        followers = [asyncio.create_task(follow()) for _ in range(500)]
        for number in range(5):
            reads.lines.append(LogLine(number + 1, f"line {number}", "INFO", 0.0))
            before = reads.queries
            reads.fails = number == 2
            while reads.queries < before + 3:
                await asyncio.sleep(0)
            reads.fails = False
        while reads.queries < 20:
            await asyncio.sleep(0)
        tail.close()
        for got in await asyncio.gather(*followers):
            assert got == [f"line {number}" for number in range(5)]
        with tail.watch("a") as late:
            assert await late.next() is None, "nothing new begins while the server stops"

    asyncio.run(scenario())


def test_who_comes_while_another_is_read_for_misses_no_line() -> None:
    async def scenario() -> None:
        came = asyncio.Event()

        class SlowReads(_Reads):
            async def watched(self, after: dict[str, int]) -> dict[str, tuple[JobState, list[LogLine]]]:
                found = await super().watched(after)
                await came.wait()
                return found

        reads = SlowReads()
        reads.lines = [LogLine(number, f"line {number}", "INFO", 0.0) for number in (1, 2)]
        tail = Tail(reads, poll_s=0.001)  # type: ignore[arg-type]
        with tail.watch("a", after=1) as resumed:
            while not reads.queries:
                await asyncio.sleep(0)
            with tail.watch("a", after=0) as newcomer:
                came.set()
                for watch, told in ((resumed, [2]), (newcomer, [1, 2])):
                    update = await watch.next()
                    assert update is not None
                    assert [line.id for line in update.lines] == told
        tail.close()

    asyncio.run(scenario())


def test_every_event_is_one_write() -> None:
    """fal's JavaScript client decodes each network chunk by itself."""

    async def scenario() -> None:
        reads = _Reads()
        reads.lines = [LogLine(1, "täglich\n\ndata: x", "INFO", 0.0)]
        tail = Tail(reads, poll_s=0.01)  # type: ignore[arg-type]
        chunks = []
        async for chunk in status_events(tail, "a", logs=True, after=0, is_allowed=lambda: True):
            chunks.append(chunk)
            reads.state = replace(reads.state, status=Status.COMPLETED)
        assert len(chunks) == 2
        for chunk in chunks:
            assert chunk.isascii()
            assert chunk.endswith(b"\n\n")
            assert chunk.count(b"\n\n") == chunk.count(b"data: {") == 1

    asyncio.run(scenario())


def test_lines_not_yet_read_when_a_job_was_given_back_come_later() -> None:
    state = _Reads().state
    watch = Watch(after=0)
    watch.update(state, None, [LogLine(1, "one", "INFO", 0.0)])
    watch.update(replace(state, status=Status.IN_QUEUE), 0, [])

    async def told() -> tuple[list[str], int] | None:
        update = await watch.next()
        return None if update is None else ([line.message for line in update.lines], update.last_line)

    assert asyncio.run(told()) == ([], 0)
    watch.update(state, None, [LogLine(2, "two", "INFO", 0.0)])
    assert asyncio.run(told()) == (["one", "two"], 2)


def test_an_end_that_came_before_the_server_stops_is_told() -> None:
    """Else the caller of a sync run would send it again."""
    watch = Watch(after=0)
    watch.update(replace(_Reads().state, status=Status.COMPLETED), None, [])
    watch.end()

    async def told() -> list[Status | None]:
        return [None if update is None else update.state.status for update in (await watch.next(), await watch.next())]

    assert asyncio.run(told()) == [Status.COMPLETED, None]


def test_a_watch_of_a_record_that_expires_ends() -> None:
    async def scenario() -> None:
        tail = Tail(_Reads(), poll_s=0.01)  # type: ignore[arg-type]
        with tail.watch("gone") as watch:
            assert await watch.next() is None

    asyncio.run(scenario())


def test_a_reader_that_is_gone_is_not_read_for() -> None:
    """Also one that had not yet taken what was sent, and without waiting for Python to collect garbage."""

    async def scenario() -> None:
        tail, sending = Tail(_Reads(), poll_s=0.001), asyncio.Event()  # type: ignore[arg-type]

        async def receive() -> Message:
            await sending.wait()
            return {"type": "http.disconnect"}

        async def send(message: Message) -> None:
            if message["type"] == "http.response.body":
                sending.set()
                await asyncio.Event().wait()

        events = status_events(tail, "a", logs=False, after=0, is_allowed=lambda: True)
        await EventResponse(events, {})({"type": "http"}, receive, send)
        assert not tail._all()

    asyncio.run(scenario())
