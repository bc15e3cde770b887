"""The worker process: runs the workflows, owns one generator, and looks after what others left behind."""

import logging
import os
import signal
import threading
import time

from dbos import DBOS

from server.database import create_engine
from server.engine import GPU_QUEUE, IO_QUEUE, engine_client, engine_config
from server.generator import Generator
from server.job_store import JobStore
from server.recovery import Reaper, reconcile
from server.retention import Retention
from server.settings import Settings
from server.storage import LocalStorage
from server.uploads import Uploads
from server.webhooks import WebhookSender
from server.worker_registry import WorkerRegistry
from server.workflows import Workflows

logger = logging.getLogger(__name__)

_TICK_S = 0.2


class WorkerProcess:
    """Everything a worker does beside the workflows, one tick after the other."""

    def __init__(self, settings: Settings) -> None:
        database = create_engine(settings.database_url)
        self._settings = settings
        self._store = JobStore(database)
        self._registry = WorkerRegistry(database)
        self._generator = Generator(settings)
        storage = LocalStorage(settings.data_dir)
        self._storage = storage
        self._workflows = Workflows(self._store, storage, self._generator, settings)
        self._retention = Retention(database, storage, settings.retention)
        self._uploads = Uploads(database, storage, settings.limits)
        self._webhooks = WebhookSender(database, self._store, settings)
        self._engine = engine_client(database)
        self._reaper = Reaper(self._registry, self._engine, stale_s=settings.jobs.heartbeat_stale_s)
        self._said: object = None
        self._said_at = self._reconciled_at = self._swept_at = -float("inf")
        DBOS(config=engine_config(database, executor_id=settings.worker_id))
        _register(self._workflows)

    def start(self) -> None:
        """Load the model, take back the jobs of this worker's last life, and wait for new ones."""
        self._generator.start()
        DBOS.launch()
        self._webhooks.start()
        jobs = self._settings.jobs
        DBOS.register_queue(
            IO_QUEUE, worker_concurrency=jobs.prepare_concurrency, polling_interval_sec=jobs.engine_poll_s
        )
        DBOS.register_queue(GPU_QUEUE, worker_concurrency=1, polling_interval_sec=jobs.engine_poll_s)

    def tick(self) -> None:
        """Called a few times a second."""
        now, jobs = time.monotonic(), self._settings.jobs
        state = self._generator.state
        if state != self._said or now - self._said_at >= jobs.heartbeat_s:
            draining = self._beat()
            (self._workflows.stop_claiming if draining else self._workflows.claim_again)()
            self._said, self._said_at = state, now
            self._store.expire_overdue()
            self._reaper.sweep()
        if now - self._reconciled_at >= jobs.reconcile_s:
            self._reconciled_at = now
            reconcile(self._store, self._engine, older_than_s=jobs.reconcile_s)
            self._storage.sweep_scratch(older_than_s=self._settings.retention.scratch_s)
        if now - self._swept_at >= self._settings.retention.sweep_s:
            self._swept_at = now
            self._retention.sweep()
            self._uploads.sweep()
        self._generator.unload_if_idle()

    def finish(self, second_signal: threading.Event) -> None:
        """Take no more jobs; let the running one end within its grace, else give it back to the queue."""
        self._workflows.stop_claiming()
        deadline = time.monotonic() + self._settings.jobs.shutdown_grace_s
        while self._generator.busy and time.monotonic() < deadline and not second_signal.wait(_TICK_S):
            self._beat()
        self._workflows.release_running()
        self._webhooks.stop()
        DBOS.destroy()

    def _beat(self) -> bool:
        state = self._generator.state
        return self._registry.beat(
            self._settings.worker_id,
            pid=os.getpid(),
            generator_pid=state.pid,
            state=state.name,
            detail=state.detail,
        )


def run_worker(settings: Settings) -> None:
    """Work until SIGTERM or SIGINT; a second signal ends the grace of the running job."""
    first, second = threading.Event(), threading.Event()

    def on_signal(*_: object) -> None:
        (second if first.is_set() else first).set()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, on_signal)
    worker = WorkerProcess(settings)
    worker.start()
    while not first.wait(_TICK_S):
        worker.tick()
    logger.info("stopping")
    worker.finish(second)
    # Not through the interpreter's shutdown: it would wait for the workflow that renders. The engine still has that
    # workflow as running and starts it again with the next worker; the generator ends with this process.
    os._exit(0)


def _register(workflows: Workflows) -> None:
    """Make the workflows known to the engine under the names that `engine.py` enqueues (it takes functions only)."""

    @DBOS.workflow(name="prepare")
    def prepare(request_id: str) -> None:
        workflows.prepare(request_id)

    @DBOS.workflow(name="render")
    def render(request_id: str) -> None:
        workflows.render(request_id)

    @DBOS.workflow(name="publish")
    def publish(request_id: str, attempt: int, rendered: str, inference_time: float) -> None:
        workflows.publish(request_id, attempt, rendered, inference_time)
