"""The worker process: runs the workflows, owns one generator, and says regularly that it lives."""

import logging
import os
import signal
import threading
import time

from dbos import DBOS

from server.database import create_engine
from server.engine import GPU_QUEUE, IO_QUEUE, engine_config
from server.generator import Generator
from server.job_store import JobStore
from server.settings import Settings
from server.storage import LocalStorage
from server.workflows import Workflows

logger = logging.getLogger(__name__)

_TICK_S = 0.2


def run_worker(settings: Settings) -> None:
    """Work until SIGTERM or SIGINT. Jobs that are under way then start again with the next worker."""
    stopping = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopping.set())

    database = create_engine(settings.database_url)
    store, storage, generator = JobStore(database), LocalStorage(settings.data_dir), Generator(settings)
    workflows = Workflows(store, storage, generator, settings)

    DBOS(config=engine_config(database, executor_id=settings.worker_id))
    _register(workflows)
    generator.start()
    DBOS.launch()
    poll = settings.jobs.engine_poll_s
    DBOS.register_queue(IO_QUEUE, worker_concurrency=settings.jobs.prepare_concurrency, polling_interval_sec=poll)
    DBOS.register_queue(GPU_QUEUE, worker_concurrency=1, polling_interval_sec=poll)

    said, said_at = None, 0.0
    while not stopping.wait(_TICK_S):
        state, now = generator.state, time.monotonic()
        if state != said or now - said_at >= settings.jobs.heartbeat_s:
            store.beat(
                settings.worker_id, pid=os.getpid(), generator_pid=state.pid, state=state.name, detail=state.detail
            )
            store.expire_overdue()
            said, said_at = state, now
    logger.info("stopping")
    DBOS.destroy()
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
