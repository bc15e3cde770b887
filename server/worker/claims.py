"""Which job this worker has claimed, and whether it claims another one."""

import threading
from typing import Final

from dbos import DBOSClient

from server.db.outage import ride_out
from server.jobs.dbos_queues import give_back_render, running_workflow
from server.jobs.job import Job
from server.jobs.job_store import JobStore, WorkerDrains
from server.worker.attempt import NotNow, NotOurs

_CLAIM_S: Final = 1.0


class Claims:
    """At most one claim at a time, none while the worker drains or stops."""

    def __init__(self, store: JobStore, dbos: DBOSClient, worker_id: str) -> None:
        self._store = store
        self._dbos = dbos
        self._worker_id = worker_id
        self._allowed = threading.Event()
        self._allowed.set()
        self._claiming = threading.Lock()
        self._held: tuple[Job, str] | None = None  # with the id of its workflow

    def allow(self, allowed: bool) -> None:
        """Whether jobs are claimed from now on; a refused one stays in the queue."""
        if allowed:
            self._allowed.set()
        else:
            self._allowed.clear()

    def wait_until_allowed(self) -> None:
        """Block while this worker claims nothing."""
        self._allowed.wait()

    def claim(self, job: Job) -> Job | NotNow | NotOurs:
        """Begin the next attempt of a job; its row then says so."""
        with self._claiming:
            if not self._allowed.is_set():
                return NotNow()
            try:
                claimed = self._store.claim(job.id, self._worker_id, attempt=job.attempt)
            except WorkerDrains:
                self._allowed.clear()  # before its next heartbeat, which says when it may claim again
                return NotNow()
            if claimed is None:
                return NotOurs()
            self._held = claimed, running_workflow()
            return claimed

    def attempt_ended(self) -> None:
        """There is nothing to give back any more."""
        self._held = None

    def requeue(self) -> None:
        """Put the workflow that calls this back into its queue. Until it returns it keeps the GPU slot."""
        ride_out(give_back_render, self._dbos, running_workflow(), self._worker_id)

    def release(self) -> None:
        """Give the job that renders back to the queue; no fault is counted. The last call: no claim succeeds after it.

        The lock is kept for that reason.
        """
        if not self._claiming.acquire(timeout=_CLAIM_S):
            return  # the database is away: if the claim was made after all, the worker that finds it counts a fault
        held = self._held  # read once: the attempt may end meanwhile
        if held is None:
            return
        job, workflow_id = held
        if self._store.release(job):
            self._store.log(job, [("WARN", "The worker is stopping; the job goes on with the next one")])
        give_back_render(self._dbos, workflow_id, self._worker_id)
