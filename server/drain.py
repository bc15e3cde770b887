"""`hunyuan-custom drain`: an orderly end before maintenance."""

import time

from server.database import create_engine
from server.job_store import JobStore
from server.settings import Settings
from server.worker_registry import WorkerRegistry

_LOOK_EVERY_S = 0.2


def drain_workers(settings: Settings, *, undo: bool) -> None:
    """Ask all workers to take no more jobs and wait until none runs, or ask them to go on."""
    database = create_engine(settings.database_url)
    WorkerRegistry(database).drain(not undo)
    store = JobStore(database)
    while not undo and store.count_running():
        time.sleep(_LOOK_EVERY_S)
    database.dispose()
