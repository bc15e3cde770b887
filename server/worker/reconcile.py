"""What DBOS does not do by itself: notice that its own tables were lost, or that a workflow left its job open."""

import logging
from collections.abc import Sequence

from dbos import DBOSClient

from server.errors import INTERNAL_ERROR
from server.jobs.dbos_queues import enqueue_again, workflow_ids
from server.jobs.job import Job
from server.jobs.job_store import JobStore

logger = logging.getLogger(__name__)

_BATCH = 100
_ENDED = {"SUCCESS", "ERROR", "CANCELLED", "MAX_RECOVERY_ATTEMPTS_EXCEEDED"}


def reconcile(store: JobStore, dbos: DBOSClient, *, older_than_s: float) -> None:
    """Enqueue every open job that DBOS does not know, and end those whose workflows ended without ending them.

    Young jobs are left alone: they may be between two workflows.
    """
    jobs = store.open_jobs(older_than_s=older_than_s)
    for first in range(0, len(jobs), _BATCH):
        some = jobs[first : first + _BATCH]
        ids = [workflow_id for job in some for workflow_id in workflow_ids(job.id, job.attempt)]
        known: dict[str, list[str]] = {}
        for workflow in dbos.list_workflows(workflow_ids=ids, load_input=False, load_output=False):
            known.setdefault(workflow.workflow_id.partition(":")[0], []).append(workflow.status)
        for job in some:
            _reconcile(store, dbos, job, known.get(job.id, []))


def _reconcile(store: JobStore, dbos: DBOSClient, job: Job, statuses: Sequence[str]) -> None:
    if not statuses:
        logger.warning("request %s was unknown to DBOS and is queued again", job.id)
        enqueue_again(dbos, job)
    elif _ENDED.issuperset(statuses):
        logger.error("request %s was left behind by its workflows", job.id)
        if not store.finish_cancelled(job):
            store.fail(job.id, INTERNAL_ERROR, attempt=job.attempt)
