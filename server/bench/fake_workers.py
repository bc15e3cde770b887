"""Many workers of one database without their processes: the statements that a worker sends, one after the other.

They are those of `JobStore`, of the registry and the reaper, and of DBOS, whose dequeueing has no public name.
"""

import time
import uuid
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final, Self

from server.db.connection import create_engine
from server.fal.schemas import HunyuanCustomInput
from server.fal.submit_headers import Priority
from server.jobs.dbos_queues import (
    APPLICATION_VERSION,
    GPU_QUEUE,
    IO_QUEUE,
    dbos_client,
    publish_queue,
)
from server.jobs.job import Job, NewJob, Rendered
from server.jobs.job_store import JobStore
from server.jobs.worker_registry import WorkerRegistry
from server.worker.takeover import Reaper

_LINES: Final = 30  # of a job's log: one for each denoising step
_STALE_S: Final = 1e9


class FakeWorkers:
    """A `queue_model.Dispatcher` on a database; the seconds that each statement group took are in `took`.

    Threads may call it beside each other, each for workers of its own.
    """

    def __init__(self, url: str) -> None:
        self._database = create_engine(url)
        self._dbos = dbos_client(self._database)
        self._now = time.time()
        self._store = JobStore(self._database, self._dbos, clock=lambda: self._now)
        self._registry = WorkerRegistry(self._database)
        self._numbers: dict[str, int] = {}
        self._running: dict[int, tuple[Job, str, str]] = {}  # by number: with its workflow and the owner of that
        self._known: set[str] = set()
        self.took: dict[str, list[float]] = defaultdict(list)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._dbos.destroy()
        self._database.dispose()

    @staticmethod
    def name(worker: int) -> str:
        """The id of a worker."""
        return f"fake-{worker}"

    def register(self, workers: int) -> None:
        """Each beats once, and makes its queues known."""
        for queue in (IO_QUEUE, GPU_QUEUE):
            self._dbos.register_queue(queue, worker_concurrency=1)
        for worker in range(workers):
            self._registry.beat(self.name(worker), pid=1, generator_pid=2, state="ready", detail="fake")

    def add(self, number: int, now: float) -> None:
        """A submit, and what `prepare` does to the database."""
        self._now = now
        body = HunyuanCustomInput(prompt="p", image_url="data:")
        new = NewJob(str(uuid.uuid4()), "local", body, 1, Priority.NORMAL, "http://127.0.0.1")
        self._numbers[new.id] = number
        with self._timed("submit"):
            self._store.add(new)
        with self._timed("prepare"):
            taken = self._take(IO_QUEUE, self.name(0))
            job = self._store.get(new.id)
            if taken is None or job is None:
                raise RuntimeError("a submitted job is not in its queue")
            self._store.prepared(job, "inputs/x")
            self._end(*taken)

    def claim(self, worker: int, now: float) -> int | None:
        """From the queue to IN_PROGRESS, as a worker does that looks for its next job."""
        self._now = now
        name = self.name(worker)
        with self._timed("claim"):
            taken = self._take(GPU_QUEUE, name)
            job = self._store.claim(taken[0].partition(":")[0], name, attempt=0) if taken else None
        if taken is None:
            self.took["empty poll"].append(self.took["claim"].pop())
            return None
        if job is None:
            raise RuntimeError("a job was taken twice")
        number = self._numbers[job.id]
        self._running[number] = (job, *taken)
        return number

    def complete(self, worker: int, number: int, now: float) -> None:
        """The job's log, rendered, published, completed."""
        self._now = now
        job, *taken = self._running.pop(number)
        name = self.name(worker)
        with self._timed("complete"):
            self._store.log(job, [("INFO", f"Denoising step {step}") for step in range(_LINES)])
            self._store.rendered(job, Rendered("files/x.mp4", "/x.mp4", name, 1.0))
            self._end(*taken)
            queue = publish_queue(name)
            if queue not in self._known:
                self._dbos.register_queue(queue, worker_concurrency=1)
                self._known.add(queue)
            publishing = self._take(queue, name)
            rendered = self._store.get(job.id)
            if (
                publishing is None
                or rendered is None
                or not self._store.complete(rendered, video_bytes=1, inference_time=1.0)
            ):
                raise RuntimeError("a rendered job cannot be completed")
            self._end(*publishing)

    def beat(self, worker: int) -> None:
        """What a worker does every `jobs.heartbeat_s`, whatever it renders."""
        with self._timed("heartbeat"):
            self._registry.beat(self.name(worker), pid=1, generator_pid=2, state="ready", detail="fake")
        with self._timed("look at others"):
            Reaper(self._registry, self._dbos, own_id=self.name(worker), stale_s=_STALE_S).sweep()

    def poll(self, worker: int) -> None:
        """What a worker does every `jobs.engine_poll_s` while it renders and no request or video waits for it."""
        with self._timed("poll"):
            self._dbos.retrieve_queue(GPU_QUEUE)
            if self._take(IO_QUEUE, self.name(worker)) or self._take(publish_queue(self.name(worker)), ""):
                raise RuntimeError("a queue that should be empty is not")

    def _take(self, queue_name: str, worker: str) -> tuple[str, str] | None:
        """The next workflow of a queue, and the token that it is this worker's."""
        queue = self._dbos.retrieve_queue(queue_name)
        if queue is None:
            return None
        owner = str(uuid.uuid4())
        found, _ = self._dbos._sys_db.start_queued_workflows(
            queue, worker, APPLICATION_VERSION, None, 0, owner_xid=owner, is_latest_version=True
        )
        for extra in found[1:]:
            raise RuntimeError(f"{extra} was taken beyond the limit of one")
        return (found[0], owner) if found else None

    def _end(self, workflow: str, owner: str) -> None:
        if not self._dbos._sys_db.update_workflow_outcome(workflow, "SUCCESS", owner_xid=owner):
            raise RuntimeError("a workflow is not this worker's any more")

    @contextmanager
    def _timed(self, what: str) -> Iterator[None]:
        started = time.perf_counter()
        yield
        self.took[what].append(time.perf_counter() - started)
