"""The worker process: runs the workflows, owns one generator, and looks after what others left behind."""

import logging
import os
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, nullcontext

from dbos import DBOS

from server.db.connection import create_engine
from server.db.outage import is_outage, one_line
from server.generator.parent import Generator
from server.jobs.dbos_queues import GPU_QUEUE, IO_QUEUE, dbos_client, dbos_config, publish_queue
from server.jobs.waiting_job_store import WaitingJobStore
from server.jobs.worker_registry import WorkerRegistry
from server.settings import Settings
from server.storage.open import open_storage
from server.storage.uploads import Uploads
from server.webhooks.sender import WebhookSender
from server.worker.orphan_files import Leftovers
from server.worker.render import Workflows
from server.worker.retention import Retention
from server.worker.takeover import Reaper, reconcile
from server.worker.worker_lock import lock_worker_id

logger = logging.getLogger(__name__)

_TICK_S = 0.2


class WorkerProcess:
    """Everything a worker does beside the workflows, one tick after the other."""

    def __init__(self, settings: Settings) -> None:
        database = create_engine(settings.database_url)
        self._settings = settings
        self._engine = dbos_client(database)
        self._store = WaitingJobStore(database, self._engine)
        self._registry = WorkerRegistry(database)
        self._generator = Generator(settings)
        storage = open_storage(settings)
        self._storage = storage
        self._workflows = Workflows(self._store, storage, self._generator, self._engine, settings=settings)
        self._retention = Retention(database, storage, self._engine, settings.retention)
        self._leftovers = Leftovers(database, storage, settings.retention)
        self._uploads = Uploads(database, storage, settings.limits)
        self._webhooks = WebhookSender(database, self._store, settings)
        self._reaper = Reaper(
            self._registry, self._engine, own_id=settings.worker_id, stale_s=settings.jobs.heartbeat_stale_s
        )
        self._sweeper = ThreadPoolExecutor(1, "sweeper")  # a slow object store must not delay a heartbeat
        self._sweeping: Future[None] | None = None
        self._database_is_away = False
        self._said: object = None
        self._said_at = self._reconciled_at = self._swept_at = -float("inf")
        DBOS(config=dbos_config(database, executor_id=settings.worker_id))
        _register(self._workflows)

    def start(self) -> None:
        """Load the model, take back the jobs of this worker's last life, and wait for new ones."""
        self._beat()  # before the first job is taken: a worker that nobody knows would not be missed
        self._generator.start()
        own_queue = publish_queue(self._settings.worker_id)
        DBOS.listen_queues([IO_QUEUE, GPU_QUEUE, own_queue])
        DBOS.launch()
        self._webhooks.start()
        jobs = self._settings.jobs
        DBOS.register_queue(
            IO_QUEUE, worker_concurrency=jobs.prepare_concurrency, polling_interval_sec=jobs.engine_poll_s
        )
        DBOS.register_queue(
            own_queue, worker_concurrency=jobs.publish_concurrency, polling_interval_sec=jobs.engine_poll_s
        )
        DBOS.register_queue(GPU_QUEUE, worker_concurrency=1, polling_interval_sec=jobs.engine_poll_s)

    def tick(self) -> None:
        """Called a few times a second; what fails while the database is away is done when it is back."""
        self._generator.unload_if_idle()
        try:
            self._look_around()
        except Exception as error:
            if not is_outage(error):
                raise
            self._reaper.start_over()
            if not self._database_is_away:
                logger.warning("the database is away; running jobs go on: %s", one_line(error))
            self._database_is_away = True
        else:
            if self._database_is_away:
                logger.warning("the database is back")
            self._database_is_away = False

    def _look_around(self) -> None:
        now, jobs = time.monotonic(), self._settings.jobs
        state = self._generator.state
        if state != self._said or now - self._said_at >= jobs.heartbeat_s:
            self._beat()
            self._said, self._said_at = state, now
            self._reaper.sweep()
        if now - self._reconciled_at >= jobs.reconcile_s:
            self._reconciled_at = now
            reconcile(self._store, self._engine, older_than_s=jobs.reconcile_s)
            self._storage.scratch.sweep(older_than_s=self._settings.retention.scratch_s)
        if now - self._swept_at >= self._settings.retention.sweep_s:
            self._swept_at = now
            if self._sweeping is None or self._sweeping.done():
                self._sweeping = self._sweeper.submit(self._sweep)

    def _sweep(self) -> None:
        for part in (self._retention, self._uploads, self._leftovers):
            try:
                part.sweep()
            except Exception:
                logger.exception("what has expired could not be removed; trying again later")

    def finish(self, hurry: threading.Event) -> None:
        """Take no more jobs; let the running one end within its grace, else give it back to the queue."""
        self._workflows.stop_claiming()
        deadline = time.monotonic() + self._settings.jobs.shutdown_grace_s
        while self._generator.busy and time.monotonic() < deadline and not hurry.wait(_TICK_S):
            with _unless_away():
                self._say_that_it_lives()
        with _unless_away():
            self._workflows.release_running()
        self._webhooks.stop()
        DBOS.destroy()

    def _beat(self) -> None:
        draining = self._say_that_it_lives()
        (self._workflows.stop_claiming if draining else self._workflows.claim_again)()

    def _say_that_it_lives(self) -> bool:
        state = self._generator.state
        return self._registry.beat(
            self._settings.worker_id,
            pid=os.getpid(),
            generator_pid=state.pid,
            state=state.name,
            detail=state.detail,
        )


def run_worker(settings: Settings, *, supervised: bool) -> None:
    """Work until SIGTERM or SIGINT. SIGUSR1, or a second signal if nobody supervises, ends the running job's grace."""
    stopping, hurry = threading.Event(), threading.Event()

    def on_signal(*_: object) -> None:
        if stopping.is_set() and not supervised:
            hurry.set()
        stopping.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, on_signal)
    signal.signal(signal.SIGUSR1, lambda *_: hurry.set())
    with nullcontext() if supervised else lock_worker_id(settings):
        worker = WorkerProcess(settings)
        try:
            worker.start()
            while not stopping.wait(_TICK_S):
                worker.tick()
            logger.info("stopping")
            worker.finish(hurry)
        except Exception:
            logger.exception("this worker cannot go on")
            os._exit(1)
        # Not through the interpreter's shutdown, here as above: it would wait for the workflow that renders. The engine
        # has that workflow back in its line or starts it again with the next worker; the generator ends with this one.
        os._exit(0)


@contextmanager
def _unless_away() -> Iterator[None]:
    """A worker that stops does not wait for the database."""
    try:
        yield
    except Exception as error:
        if not is_outage(error):
            raise


def _register(workflows: Workflows) -> None:
    """Make the workflows known to the engine under the names that `jobs/dbos_queues.py` enqueues (functions only).

    How often one may be recovered is not for the engine to say: a job counts its own faults.
    """

    @DBOS.workflow(name="prepare", max_recovery_attempts=None)
    def prepare(request_id: str) -> None:
        workflows.prepare(request_id)

    @DBOS.workflow(name="render", max_recovery_attempts=None)
    def render(request_id: str) -> None:
        workflows.render(request_id)

    @DBOS.workflow(name="publish", max_recovery_attempts=None)
    def publish(request_id: str, video_key: str, rendered: str, inference_time: float) -> None:
        workflows.publish(request_id, video_key, rendered, inference_time)
