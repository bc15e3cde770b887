"""Waits until no worker runs a job: an orderly end before maintenance."""

import time
from dataclasses import dataclass

from server.db.connection import create_engine
from server.jobs.worker_registry import WorkerRegistry
from server.settings import Settings

_POLL_S = 0.1
# A worker reads the flag with one heartbeat and has stopped taking jobs before the next.
_BEATS_UNTIL_DRAINING = 2


@dataclass(slots=True)
class _Beats:
    """Heartbeats of one worker as seen here, on this process's clock."""

    last: float
    changed_at: float
    count: int = 0


def drain_workers(settings: Settings, *, undo: bool) -> None:
    """Ask all workers to take no more jobs and wait until none runs, or ask them to go on."""
    database = create_engine(settings.database_url)
    registry = WorkerRegistry(database)
    registry.drain(not undo)
    seen: dict[str, _Beats] = {}
    while not undo:
        now = time.monotonic()
        for worker in registry.all():
            beats = seen.setdefault(worker.id, _Beats(worker.heartbeat_at, now))
            if beats.last != worker.heartbeat_at:
                beats.last, beats.changed_at, beats.count = worker.heartbeat_at, now, beats.count + 1
        alive = {
            name: beats for name, beats in seen.items() if now - beats.changed_at < settings.jobs.heartbeat_stale_s
        }
        draining = all(beats.count >= _BEATS_UNTIL_DRAINING for beats in alive.values())
        if draining and not registry.count_running(alive):
            break
        time.sleep(_POLL_S)
    database.dispose()
