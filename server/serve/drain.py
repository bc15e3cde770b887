"""Waits until no worker runs a job: an orderly end before maintenance."""

import time
from dataclasses import dataclass

from server.db.connection import create_engine
from server.jobs.worker_registry import WorkerRegistry
from server.settings import Settings

_POLL_S = 0.1


@dataclass(frozen=True, slots=True)
class _Beat:
    """The last heartbeat of one worker, and when it was first seen here, on this process's clock."""

    at: float
    seen_at: float


def drain_workers(settings: Settings, *, undo: bool) -> None:
    """Ask all workers to take no more jobs and wait until none runs, or ask them to go on."""
    database = create_engine(settings.database_url)
    registry = WorkerRegistry(database)
    registry.drain(not undo)
    seen: dict[str, _Beat] = {}
    while not undo:
        now = time.monotonic()
        for worker in registry.all():
            if worker.id not in seen or seen[worker.id].at != worker.heartbeat_at:
                seen[worker.id] = _Beat(worker.heartbeat_at, now)
        alive = [name for name, beat in seen.items() if now - beat.seen_at < settings.jobs.heartbeat_stale_s]
        if not registry.count_running(alive):
            break
        time.sleep(_POLL_S)
    database.dispose()
