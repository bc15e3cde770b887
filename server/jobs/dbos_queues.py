"""The queues of DBOS, their names, and how work is handed over from one workflow to the next.

Everything specific to DBOS that submit and the workflows need is here; the workflows themselves are in `worker/`.
They hand over through a client, in the transaction of the row's change, and never as a step of DBOS: a step that is
repeated after a crash is answered from its record, and the hand-over of the next attempt would not happen.
"""

import logging
from collections.abc import Mapping, Sequence
from typing import Any, Final

import sqlalchemy as sa
from dbos import DBOS, DBOSClient, DBOSConfig, DBOSPortableJSONSerializer, EnqueueOptions

from server.db.outage import OutageFilter
from server.db.tables import literal
from server.jobs.job import Job, Rendered

APPLICATION: Final = "hunyuan-custom"
# Pinned: the default is a hash of the code, which would strand queued jobs at every upgrade.
APPLICATION_VERSION: Final = "1"

IO_QUEUE: Final = "io"  # prepare: network and disk, several at once
GPU_QUEUE: Final = "gpu"  # render: one at a time per worker

_PREFIXES: Final = 50  # of workflow ids, in one query
_NOTIFY_S: Final = 0.5  # of DBOS's events, which nothing here waits for; its default is a hundred times a second
_OUTAGES_ONCE: Final = OutageFilter()


def dbos_config(database: sa.Engine, *, executor_id: str) -> DBOSConfig:
    """Configuration of a worker. Its id must survive a restart: DBOS recovers the work of its own id at start."""
    return DBOSConfig(
        name=APPLICATION,
        system_database_url=database.url.render_as_string(hide_password=False),
        system_database_engine=database,
        application_version=APPLICATION_VERSION,
        executor_id=executor_id,
        serializer=DBOSPortableJSONSerializer(),
        run_migrations=False,
        enable_otlp=False,
        log_level="WARNING",
        notification_coalesce_sec=_NOTIFY_S,
    )


def dbos_client(database: sa.Engine) -> DBOSClient:
    """The client of a process that enqueues and cancels workflows, but runs none; workers have one beside DBOS."""
    logging.getLogger("dbos").addFilter(_OUTAGES_ONCE)
    return DBOSClient(
        system_database_url=database.url.render_as_string(hide_password=False),
        system_database_engine=database,
        serializer=DBOSPortableJSONSerializer(),
        application_name=APPLICATION,
        retry_connection_errors=False,  # its callers do not wait, or wait by themselves
    )


def register_queues(client: DBOSClient, concurrency: Mapping[str, int], *, poll_s: float) -> None:
    """Before DBOS is launched, which then serves them at once. A worker runs so many workflows of each at a time."""
    for name, limit in concurrency.items():
        client.register_queue(name, worker_concurrency=limit, polling_interval_sec=poll_s)


def some_enqueued(database: sa.Engine, queue: str) -> sa.Select[Any]:
    """Finds a row if workflows wait in a queue."""
    row, waiting = _workflows(database).c, literal("ENQUEUED")
    indexed = row.status.in_([waiting, literal("PENDING")])  # the condition of DBOS's index, in the same words
    return sa.select(sa.literal(1)).where(row.queue_name == queue, row.status == waiting, indexed)


def executors_at_work(database: sa.Engine) -> sa.Select[tuple[str]]:
    """The workers that run workflows, as DBOS knows them."""
    row = _workflows(database).c
    running = row.status == literal("PENDING")
    return sa.select(row.executor_id).where(running, row.executor_id.is_not(None)).distinct()


def _workflows(database: sa.Engine) -> sa.FromClause:
    """DBOS's own table, which it documents. Its client asks for thirty of them."""
    schema = None if database.dialect.name == "sqlite" else "dbos"
    columns: list[sa.ColumnClause[Any]] = [sa.column(name) for name in ("queue_name", "status", "executor_id")]
    return sa.table("workflow_status", *columns, schema=schema)


def enqueue_prepare(client: DBOSClient, transaction: sa.Connection, request_id: str) -> None:
    """Start the chain of a new job, inside the transaction that writes its row."""
    client.enqueue_in_transaction(transaction, _options(IO_QUEUE, "prepare", request_id), request_id)


def enqueue_render(client: DBOSClient, transaction: sa.Connection, job: Job) -> None:
    """From `prepare`: wait for the GPU, in the order that queue positions show."""
    client.enqueue_in_transaction(transaction, _render_options(job, job.id), job.id)


def enqueue_publish(client: DBOSClient, transaction: sa.Connection, job: Job, rendered: Rendered) -> None:
    """From `render`: store the file, which is on this worker's machine, while the GPU goes on with the next job."""
    options = _options(publish_queue(rendered.worker_id), "publish", f"{job.id}:{job.attempt}")
    client.enqueue_in_transaction(
        transaction, options, job.id, rendered.video_key, rendered.path, rendered.inference_time
    )


def enqueue_render_again(client: DBOSClient, transaction: sa.Connection, job: Job) -> None:
    """From `publish`: the file that this attempt rendered is lost, with its machine."""
    client.enqueue_in_transaction(transaction, _render_options(job, f"{job.id}:{job.attempt}"), job.id)


def running_workflow() -> str:
    """The id of the workflow that runs on this thread."""
    workflow_id = DBOS.workflow_id
    if workflow_id is None:
        raise RuntimeError("no workflow runs on this thread")
    return workflow_id


def give_back_render(client: DBOSClient, workflow_id: str, worker_id: str) -> None:
    """Put a `render` of this worker back into its queue. Until it returns it keeps this worker's only GPU slot."""
    mine = client.list_workflows(
        workflow_ids=[workflow_id], status="PENDING", executor_id=worker_id, load_input=False, load_output=False
    )
    if mine:  # otherwise it has been taken over
        client.resume_workflow(workflow_id, queue_name=GPU_QUEUE)


def enqueue_again(client: DBOSClient, job: Job) -> None:
    """Start the chain of a job whose workflows were lost; what its row knows is not repeated."""
    client.enqueue(_options(IO_QUEUE, "prepare", job.id), job.id)


def workflow_ids(request_id: str, attempt: int) -> list[str]:
    """All workflows that can be under way for a job whose current attempt is this one."""
    again = [f"{request_id}:{earlier}:render" for earlier in range(1, attempt + 1)]
    return [f"{request_id}:prepare", f"{request_id}:render", *again, f"{request_id}:{attempt}:publish"]


def forget_workflows(client: DBOSClient, request_ids: Sequence[str]) -> None:
    """Remove all that DBOS keeps of requests that are over."""
    prefixes = [f"{request_id}:" for request_id in request_ids]
    for first in range(0, len(prefixes), _PREFIXES):
        some = prefixes[first : first + _PREFIXES]
        known = client.list_workflows(workflow_id_prefix=some, load_input=False, load_output=False)
        client.delete_workflows([workflow.workflow_id for workflow in known])


def publish_queue(worker_id: str) -> str:
    """The queue for videos that are on a worker's own disk."""
    return f"publish-{worker_id}"


def queue_of(workflow: str, worker_id: str) -> str:
    """The queue of a workflow that this worker takes over."""
    return {"render": GPU_QUEUE, "publish": publish_queue(worker_id)}.get(workflow, IO_QUEUE)


def _render_options(job: Job, key: str) -> EnqueueOptions:
    options = _options(GPU_QUEUE, "render", key)
    options["priority"] = job.dbos_priority
    return options


def _options(queue: str, workflow: str, key: str) -> EnqueueOptions:
    # The id makes handing over idempotent: a repeated hand-over after a crash attaches to the first.
    return EnqueueOptions(
        queue_name=queue, workflow_name=workflow, workflow_id=f"{key}:{workflow}", app_version=APPLICATION_VERSION
    )
