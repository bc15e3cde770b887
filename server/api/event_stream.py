"""Server-sent events of a job's status, and the one tail reader of this process that feeds them all.

However many streams and sync runs are open, the database is asked once per tick. A stream is resumable: the id of an
event is the id of the last log line sent, and `Last-Event-ID` brings only later lines. Everything is ASCII and every
event is one write, because fal's JS client decodes each network chunk by itself.
"""

import asyncio
import json
import logging
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import Context
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from server.db.outage import OUTAGES, is_outage
from server.jobs import views
from server.jobs.job import LogLine, Status
from server.jobs.status_reads import JobState, StatusReads

logger = logging.getLogger(__name__)

NO_LOGS: Final = 2**53  # behind every line, and exact in JSON
_PING_S: Final = 15.0
_RECHECK_S: Final = 1.0
_EVENTS_AT_ONCE: Final = 64


@dataclass(frozen=True, slots=True)
class Update:
    """A change: the present state, and the log lines that are new to this watcher."""

    state: JobState
    position: int | None
    lines: list[LogLine]
    last_line: int


class Watch:
    """One watcher of one job. It keeps no history: a slow reader gets what is true when it reads again."""

    def __init__(self, after: int) -> None:
        self.after = self._sent = after
        self._lines: list[LogLine] = []
        self._now: tuple[JobState, int | None] | None = None
        self._told: tuple[Status, int | None] | None = None
        self._news = asyncio.Event()
        self._ended = False

    def update(self, state: JobState, position: int | None, lines: list[LogLine]) -> None:
        """Called by the tail at every tick."""
        self._now = (state, position)
        if state.status is not Status.IN_QUEUE:  # the lines of a waiting job come when it runs
            fresh = [line for line in lines if line.id > self.after]
            self._lines += fresh
            self.after = fresh[-1].id if fresh else self.after
        if self._has_news():
            self._news.set()

    def _has_news(self) -> bool:
        if self._now is None:
            return False
        state, position = self._now
        return (state.status is not Status.IN_QUEUE and bool(self._lines)) or (state.status, position) != self._told

    def end(self) -> None:
        """No more changes after those that came: the record expired, or the server stops."""
        self._ended = True
        self._news.set()

    async def next(self) -> Update | None:
        """The next change, the present state first; None when there will be none."""
        await self._news.wait()
        if self._now is None or (self._ended and not self._has_news()):
            return None
        if not self._ended:
            self._news.clear()
        state, position = self._now
        self._told = (state.status, position)
        lines: list[LogLine] = []
        if state.status is not Status.IN_QUEUE:
            lines, self._lines = self._lines, lines
        self._sent = lines[-1].id if lines else self._sent
        return Update(state, position, lines, self._sent)


class Tail:
    """Reads the watched jobs once per tick while there is a watcher."""

    def __init__(self, reads: StatusReads, *, poll_s: float) -> None:
        self._reads = reads
        self._poll_s = poll_s
        self._watches: dict[str, list[Watch]] = {}
        self._task: asyncio.Task[None] | None = None
        self._closed = False

    @contextmanager
    def watch(self, request_id: str, *, after: int = NO_LOGS) -> Iterator[Watch]:
        """Watch a job; with `after`, also its log lines behind that one."""
        watch = Watch(after)
        if self._closed:
            watch.end()
        self._watches.setdefault(request_id, []).append(watch)
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._run(), context=Context())  # about no request: it watches all
        try:
            yield watch
        finally:
            self._watches[request_id].remove(watch)
            if not self._watches[request_id]:
                del self._watches[request_id]

    def close(self) -> None:
        """The server stops: every stream ends, its client comes back with its last event id."""
        self._closed = True
        for watch in self._all():
            watch.end()

    async def _run(self) -> None:
        while self._watches:
            try:
                await self._tick()
            except Exception as error:  # a short outage of the database must not end every stream
                if is_outage(error):
                    OUTAGES.noticed(error)
                else:
                    logger.exception("the watched jobs could not be read; trying again")
            await asyncio.sleep(self._poll_s)

    async def _tick(self) -> None:
        asked = {request_id: list(watches) for request_id, watches in self._watches.items()}
        found = await self._reads.watched({job: min(watch.after for watch in of) for job, of in asked.items()})
        for request_id, watches in asked.items():  # who came meanwhile may need earlier lines than were read
            if request_id not in found:
                for watch in watches:
                    watch.end()
                continue
            state, lines = found[request_id]
            position = await self._reads.recent_position(state) if state.status is Status.IN_QUEUE else None
            for watch in watches:
                watch.update(state, position, lines)

    def _all(self) -> list[Watch]:
        return [watch for watches in self._watches.values() for watch in watches]


class EventResponse(StreamingResponse):
    """Ends its events with the connection.

    Starlette leaves a generator behind that was cancelled while its reader was slow: the tail would go on reading for
    it until Python collects garbage.
    """

    def __init__(self, events: AsyncGenerator[bytes], headers: Mapping[str, str]) -> None:
        super().__init__(events, media_type="text/event-stream", headers=headers)
        self._events = events

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the events until their end, or that of the connection."""
        try:
            await super().__call__(scope, receive, send)
        finally:
            await self._events.aclose()


async def status_events(
    tail: Tail, request_id: str, *, logs: bool, after: int, is_allowed: Callable[[], bool]
) -> AsyncGenerator[bytes]:
    """The events of one stream; it ends after COMPLETED, and when its caller may not read it any more."""
    with tail.watch(request_id, after=after if logs else NO_LOGS) as watch:
        silent_s = 0.0
        while is_allowed():
            try:
                async with asyncio.timeout(_RECHECK_S):
                    update = await watch.next()
            except TimeoutError:
                silent_s += _RECHECK_S
                if silent_s >= _PING_S:
                    silent_s = 0.0
                    yield b": ping\n\n"
                continue
            if update is None or not is_allowed():
                return
            silent_s = 0.0
            yield _event(update.state, update.position, tuple(update.lines) if logs else None, update.last_line)
            if update.state.status is Status.COMPLETED:
                return


@lru_cache(maxsize=_EVENTS_AT_ONCE)
def _event(state: JobState, position: int | None, lines: tuple[LogLine, ...] | None, last_line: int) -> bytes:
    """Made once for all streams of a job that tell the same. `lines`: None without logs."""
    status = views.status(state, queue_position=position, logs=lines)
    event_id = f"id: {last_line}\n" if lines is not None else ""
    return f"{event_id}data: {json.dumps(status.model_dump(exclude_unset=True))}\n\n".encode("ascii")
