"""The worker process: runs the workflows, owns one generator, and takes over what other processes have left behind."""

import logging
import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager

from dbos import DBOS

from server.db.connection import create_engine
from server.db.outage import OUTAGES, is_outage, ride_out
from server.db.waiting_work import WaitingWork
from server.generator.parent import Generator
from server.jobs.dbos_polling import destroy_before_exit, poll_only_for_work
from server.jobs.dbos_queues import (
    GPU_QUEUE,
    IO_QUEUE,
    dbos_client,
    dbos_config,
    publish_queue,
    register_queues,
    some_enqueued,
)
from server.jobs.measurements import MeasurementTable
from server.jobs.progress import ProgressTable
from server.jobs.waiting_job_store import WaitingJobStore
from server.jobs.worker_registry import WorkerRegistry
from server.logs import about_request
from server.service_manager import READY, STOPPING, notify
from server.settings import Settings
from server.signal_flag import SignalFlag
from server.storage.open import open_storage
from server.storage.uploads import Uploads
from server.tracing.spans import stop_tracing
from server.webhooks.outbox import some_due
from server.webhooks.sender import WebhookSender
from server.worker.expiry.orphan_files import OrphanFiles
from server.worker.expiry.retention import Retention
from server.worker.expiry.sweeper import Sweeper
from server.worker.heartbeat import Heartbeat
from server.worker.measuring import MeasurementReport, Measuring
from server.worker.prepare import PrepareWorkflow
from server.worker.publish import PublishWorkflow
from server.worker.reconcile import reconcile
from server.worker.render import RenderWorkflow
from server.worker.takeover import Reaper

logger = logging.getLogger(__name__)

_TICK_S = 0.2
_REGISTER_S = 1.0
_WEBHOOKS = "webhooks"


class WorkerProcess:
    """Everything a worker does beside the workflows, one tick after the other."""

    def __init__(self, settings: Settings, generator: Generator) -> None:
        jobs, own_id = settings.jobs, settings.worker_id
        database, storage = create_engine(settings.database_url), open_storage(settings)
        dbos = dbos_client(database)
        store, registry = WaitingJobStore(database, dbos), WorkerRegistry(database)
        self._settings, self._storage, self._store, self._dbos = settings, storage, store, dbos
        self._registry = registry
        self._generator = generator
        self._heartbeat = Heartbeat(registry, generator, worker_id=own_id, every_s=jobs.heartbeat_s)
        self._reaper = Reaper(registry, dbos, own_id=own_id, stale_s=jobs.heartbeat_stale_s)
        self._concurrency = {
            IO_QUEUE: jobs.prepare_concurrency,
            publish_queue(own_id): jobs.publish_concurrency,
            GPU_QUEUE: 1,
        }
        kinds = {queue: some_enqueued(database, queue) for queue in self._concurrency} | {_WEBHOOKS: some_due()}
        self._work = WaitingWork(database, kinds, every_s=jobs.engine_poll_s)
        self._webhooks = WebhookSender(database, store, settings, wait_for_work=lambda: self._work.wait(_WEBHOOKS))
        expiring = (
            Retention(database, storage, dbos, settings.retention),
            Uploads(database, storage, settings.limits),
            OrphanFiles(database, storage, settings.retention),
        )
        self._sweeper = Sweeper([part.sweep for part in expiring], every_s=settings.retention.sweep_s)
        self._reconciled_at = -float("inf")

        measuring = Measuring()
        self._report = MeasurementReport(MeasurementTable(database), measuring, worker_id=own_id)
        progress = ProgressTable(database)
        render = RenderWorkflow(
            store, storage, generator, dbos, progress=progress, settings=settings, measuring=measuring
        )
        self._render, self._claims = render, render.claims
        self._engine = DBOS(config=dbos_config(database, executor_id=own_id))
        prepare = PrepareWorkflow(store, storage, settings, measuring=measuring)
        _register(prepare, render, PublishWorkflow(store, storage, settings, measuring=measuring))

    def register(self) -> bool:
        """Write the worker's row; False while the database is away.

        Before the first job is taken: a worker that is not registered would not be missed.
        """
        try:
            self._beat()
        except Exception as error:
            if not is_outage(error):
                raise
            OUTAGES.noticed(error)
            return False
        return True

    def start(self) -> None:
        """Take back the jobs that this worker had when it last ended, and wait for new ones."""
        ride_out(register_queues, self._dbos, self._concurrency, poll_s=self._settings.jobs.engine_poll_s)
        DBOS.listen_queues(list(self._concurrency))
        DBOS.launch()
        poll_only_for_work(self._engine, self._work, self._concurrency)
        self._work.start()
        self._webhooks.start()

    def tick(self) -> None:
        """Called a few times a second; what fails while the database is away is done when it is back."""
        self._generator.unload_if_idle()
        try:
            self._maintain()
        except Exception as error:
            if not is_outage(error):
                raise
            self._reaper.start_over()
            OUTAGES.noticed(error)

    def _maintain(self) -> None:
        if self._heartbeat.due:
            self._beat()
            self._reaper.sweep()
        now, every_s = time.monotonic(), self._settings.jobs.reconcile_s
        if now - self._reconciled_at >= every_s:
            self._reconciled_at = now
            reconcile(self._store, self._dbos, older_than_s=every_s)
            self._sweep_scratch(older_than_s=self._settings.retention.scratch_s)
        self._sweeper.start_if_due()

    def _sweep_scratch(self, *, older_than_s: float) -> None:
        """Not what an open job still needs: its video may have waited for the database for so long."""
        needed = [job.id for job in self._store.open_jobs(older_than_s=older_than_s)]
        self._storage.scratch.sweep(older_than_s=older_than_s, but_not_of=needed)

    def _beat(self) -> None:
        draining = self._heartbeat.beat()
        self._report.write(self._generator.state.gpu_memory)
        OUTAGES.written()
        self._claims.allow(not draining)

    def finish(self, hurry: SignalFlag) -> None:
        """Take no more jobs; let what runs end within its grace, else give the job that renders back to the queue."""
        self._claims.allow(False)
        self._heartbeat.stop()
        with _unless_away():
            self._heartbeat.beat()
        deadline = time.monotonic() + self._settings.jobs.shutdown_grace_s
        while time.monotonic() < deadline and self._has_jobs() and not hurry.wait(_TICK_S):
            with _unless_away():
                self._heartbeat.beat()
        with _unless_away():
            self._render.write_log()
        with _unless_away():  # for a moment perhaps, and what is not given back counts a fault
            self._claims.release()
            self._report.write(self._generator.state.gpu_memory)
        self._work.stop()
        self._webhooks.stop()
        destroy_before_exit(self._engine)

    def _has_jobs(self) -> bool:
        """Whether one renders, or its video, which this machine alone may have, is on its way into storage."""
        publishes = False
        with _unless_away():
            publishes = bool(self._registry.count_running([self._settings.worker_id]))
        return publishes or self._generator.busy


def run_worker(settings: Settings, generator: Generator, *, supervised: bool) -> None:
    """Work until SIGTERM or SIGINT. SIGUSR1, or a second signal without a supervisor, ends the running job's grace.

    `generator` may be loading already; the id of an unsupervised worker is locked.
    """
    # Until here a signal ends the process at once: there is nothing yet to end in order.
    worker = ride_out(WorkerProcess, settings, generator)
    stopping, hurry = SignalFlag(), SignalFlag()

    def tell(fact: str) -> None:
        if not supervised:
            notify(fact)

    def on_signal(*_: object) -> None:
        if stopping.is_set() and not supervised:
            hurry.set()
        stopping.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, on_signal)
    signal.signal(signal.SIGUSR1, lambda *_: hurry.set())
    try:
        while not worker.register() and not stopping.wait(_REGISTER_S):
            pass
        if not stopping.is_set():
            worker.start()
            tell(READY)
        while not stopping.wait(_TICK_S):
            worker.tick()
        logger.info("stopping")
        tell(STOPPING)
        worker.finish(hurry)
        stop_tracing()
    except Exception:
        logger.exception("this worker cannot go on")
        os._exit(1)
    # Not through the interpreter's shutdown, here as above: it would wait for the workflow that renders. DBOS has
    # that workflow back in its queue or starts it again with the next worker; the generator ends with this one.
    os._exit(0)


@contextmanager
def _unless_away() -> Iterator[None]:
    """A worker that stops does not wait for the database."""
    try:
        yield
    except Exception as error:
        if not is_outage(error):
            raise


def _register(preparation: PrepareWorkflow, rendering: RenderWorkflow, publication: PublishWorkflow) -> None:
    """Make the workflows known to DBOS under the names that `jobs/dbos_queues.py` enqueues (functions only).

    How often one may be recovered is not for DBOS to say: a job counts its own faults.
    """

    @DBOS.workflow(name="prepare", max_recovery_attempts=None)
    def prepare(request_id: str) -> None:
        with about_request(request_id):
            preparation.run(request_id)

    @DBOS.workflow(name="render", max_recovery_attempts=None)
    def render(request_id: str) -> None:
        with about_request(request_id):
            rendering.run(request_id)

    @DBOS.workflow(name="publish", max_recovery_attempts=None)
    def publish(request_id: str, video_key: str, rendered: str, inference_time: float) -> None:
        with about_request(request_id):
            publication.run(request_id, video_key, rendered, inference_time)
