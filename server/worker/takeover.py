"""What DBOS does not do by itself: notice that a worker is gone, and that its own tables were lost.

Only public calls of the engine. A resumed workflow is always given its queue: without one it would run beside another
job on the same GPU.
"""

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from dbos import DBOSClient

from server.errors import INTERNAL_ERROR
from server.jobs.dbos_queues import enqueue_again, publish_queue, queue_of, workflow_ids
from server.jobs.job import Job
from server.jobs.job_store import JobStore
from server.jobs.worker_registry import WorkerRegistry

logger = logging.getLogger(__name__)

_BATCH = 100
_ENDED = {"SUCCESS", "ERROR", "CANCELLED", "MAX_RECOVERY_ATTEMPTS_EXCEEDED"}


@dataclass(frozen=True, slots=True)
class _Seen:
    heartbeat_at: float | None  # None: the engine knows it and the registry does not
    since: float


class Reaper:
    """Hands the work of silent workers to the others.

    Silence is measured on this process's monotonic clock, from when a heartbeat was last seen to *change*: no
    difference between machines' clocks, and no jump of one, can take work away from a worker that lives. After a pause
    of this process itself it starts over: the others may have been frozen with it.
    """

    def __init__(
        self,
        workers: WorkerRegistry,
        engine: DBOSClient,
        *,
        own_id: str,
        stale_s: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._workers = workers
        self._engine = engine
        self._own_id = own_id
        self._stale_s = stale_s
        self._clock = clock
        self._seen: dict[str, _Seen] = {}
        self._swept_at = clock()

    def sweep(self) -> None:
        """Look at all workers once; two reapers at work at the same time do no harm."""
        now = self._clock()
        if now - self._swept_at > self._stale_s / 2:
            self.start_over()
        self._swept_at = now
        for worker_id, heartbeat_at in self._heartbeats().items():
            seen = self._seen.get(worker_id)
            if seen is None or seen.heartbeat_at != heartbeat_at:
                self._seen[worker_id] = _Seen(heartbeat_at, now)
            elif now - seen.since > self._stale_s:
                self._take_over(worker_id)
                del self._seen[worker_id]

    def _heartbeats(self) -> dict[str, float | None]:
        """Of all registered workers, and of those that have work without being registered (any more)."""
        running = self._engine.list_workflows(status="PENDING", load_input=False, load_output=False)
        unregistered = {workflow.executor_id: None for workflow in running if workflow.executor_id}
        return unregistered | {worker.id: worker.heartbeat_at for worker in self._workers.all()}

    def start_over(self) -> None:
        """Forget what was seen: while the database was away nobody's heartbeat could change."""
        self._seen.clear()

    def _take_over(self, worker_id: str) -> None:
        """What it was doing, and the videos that only it would have published (rendered again if out of reach)."""
        orphans = self._engine.list_workflows(executor_id=worker_id, status="PENDING", load_input=False)
        if worker_id != self._own_id:
            left = publish_queue(worker_id)
            orphans += self._engine.list_workflows(queue_name=left, status="ENQUEUED", load_input=False)
        if orphans:
            logger.warning("worker %s is gone; %d workflows go to other workers", worker_id, len(orphans))
        for workflow in orphans:
            self._engine.resume_workflow(workflow.workflow_id, queue_name=queue_of(workflow.name, self._own_id))
        self._workers.forget(worker_id)


def reconcile(store: JobStore, engine: DBOSClient, *, older_than_s: float) -> None:
    """Give every open job that the engine has forgotten back to it, and end those whose workflow ended without them.

    Young jobs are left alone: theirs may be between two workflows.
    """
    jobs = store.open_jobs(older_than_s=older_than_s)
    for first in range(0, len(jobs), _BATCH):
        some = jobs[first : first + _BATCH]
        ids = [workflow_id for job in some for workflow_id in workflow_ids(job.id, job.attempt)]
        known: dict[str, list[str]] = {}
        for workflow in engine.list_workflows(workflow_ids=ids, load_input=False, load_output=False):
            known.setdefault(workflow.workflow_id.partition(":")[0], []).append(workflow.status)
        for job in some:
            _reconcile(store, engine, job, known.get(job.id, []))


def _reconcile(store: JobStore, engine: DBOSClient, job: Job, statuses: Sequence[str]) -> None:
    if not statuses:
        logger.warning("request %s was unknown to the engine and is queued again", job.id)
        enqueue_again(engine, job)
    elif _ENDED.issuperset(statuses):
        logger.error("request %s was left behind by its workflows", job.id)
        _ = store.finish_cancelled(job) or store.fail(job.id, INTERNAL_ERROR, attempt=job.attempt)
