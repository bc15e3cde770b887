"""One worker per id at a time: two would each take the other's jobs for its own from before a restart."""

import fcntl
from typing import IO

from server.errors import SettingsError
from server.settings import Settings


def lock_worker_id(settings: Settings, worker_id: str) -> IO[str]:
    """The id is locked until the file is closed or this process ends, however it ends.

    Raises:
        SettingsError: a worker of that id is running on this data directory.
    """
    settings.data_dir.mkdir(parents=True, exist_ok=True)
    lock = (settings.data_dir / f"worker-{worker_id}.lock").open("w")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        lock.close()
        raise SettingsError(
            f"worker_id: a worker named {worker_id} is running on {settings.data_dir} already"
        ) from None
    return lock
