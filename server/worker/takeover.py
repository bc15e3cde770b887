"""What DBOS does not do by itself: notice that a worker is gone, and hand its work to the others.

Only public calls of DBOS. A resumed workflow is always given its queue: without one it would run beside another
job on the same GPU.
"""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass

from dbos import DBOSClient

from server.jobs.dbos_queues import publish_queue, queue_of
from server.jobs.worker_registry import WorkerRegistry

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Seen:
    heartbeat_at: float | None  # None: DBOS knows it and the registry does not
    since: float


class Reaper:
    """Hands the work of silent workers to the others.

    Silence is measured on this process's monotonic clock, from when a heartbeat was last seen to *change*: no
    difference between machines' clocks, and no jump of one, can take work away from a live worker. After a pause of
    this process itself it starts over: the others may have been frozen with it.
    """

    def __init__(
        self,
        workers: WorkerRegistry,
        dbos: DBOSClient,
        *,
        own_id: str,
        stale_s: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._workers = workers
        self._dbos = dbos
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
        for worker_id, heartbeat_at in self._workers.heartbeats().items():
            seen = self._seen.get(worker_id)
            if seen is None or seen.heartbeat_at != heartbeat_at:
                self._seen[worker_id] = _Seen(heartbeat_at, now)
            elif now - seen.since > self._stale_s:
                self._take_over(worker_id)
                del self._seen[worker_id]

    def start_over(self) -> None:
        """Forget what was seen: while the database was away no heartbeat could change."""
        self._seen.clear()

    def _take_over(self, worker_id: str) -> None:
        """What it was doing, and the videos that only it would have published (rendered again if out of reach)."""
        orphans = self._dbos.list_workflows(executor_id=worker_id, status="PENDING", load_input=False)
        if worker_id != self._own_id:
            left = publish_queue(worker_id)
            orphans += self._dbos.list_workflows(queue_name=left, status="ENQUEUED", load_input=False)
        if orphans:
            logger.warning("worker %s is gone; %d workflows go to other workers", worker_id, len(orphans))
        for workflow in orphans:
            self._dbos.resume_workflow(workflow.workflow_id, queue_name=queue_of(workflow.name, self._own_id))
        self._workers.forget(worker_id)
