"""Makes the threads of DBOS wait until there is work, instead of looking for it several times a second; ends them.

DBOS has no setting for that. Between two looks its threads sleep in the `wait` of the event that ends them; another
`wait` is put into its place, which knows them by their names. What it does not know it leaves alone, so a version of
DBOS that is built differently polls as it was made to.
"""

import logging
import threading
from collections.abc import Callable, Collection
from typing import Final

from dbos import DBOS

from server.db.waiting_work import WaitingWork

logger = logging.getLogger(__name__)

_QUEUE: Final = "queue-worker-"
_JOBS: Final = "dbos-background-jobs"
# Timeouts and delays of workflows, a queue for DBOS's own workflows, new queues: nothing here uses any of them.
_UNUSED: Final = (_JOBS, f"{_QUEUE}_dbos_internal_queue", "(queue_thread)")
_UNUSED_EVERY_S: Final = 30.0  # instead of every second
_LISTENER: Final = "(run_notification_listener)"


def poll_only_for_work(dbos: DBOS, work: WaitingWork, queues: Collection[str]) -> None:
    """For a launched DBOS. `work` knows each queue by its name."""
    queue_of = {f"{_QUEUE}{queue}": queue for queue in queues}
    try:
        events = [*dbos.background_thread_stop_events, dbos._background_jobs_stop_event]
    except AttributeError:
        logger.warning("this version of DBOS is built differently; it polls all the time")
        return
    for event in events:
        event.wait = _patient(event, work, queue_of)  # type: ignore[method-assign,assignment]


def destroy_before_exit(dbos: DBOS) -> None:
    """End DBOS in a process that ends next: not after the rest of a second that its listener sleeps between two looks.

    It listens for messages and events, which no workflow here sends.
    """
    threads = getattr(dbos, "_background_threads", [])
    threads[:] = [thread for thread in threads if not thread.name.endswith(_LISTENER)]
    DBOS.destroy()


def _patient(event: threading.Event, work: WaitingWork, queue_of: dict[str, str]) -> Callable[[float | None], bool]:
    """In place of `event.wait`."""
    wait = event.wait

    def patient(timeout: float | None = None) -> bool:
        name = threading.current_thread().name
        if name.endswith(_UNUSED) and queue_of.keys() <= {thread.name for thread in threading.enumerate()}:
            # Its jobs are done under a lock: the wait inside is left as it is, since the lock is taken from who idles.
            return wait(timeout if timeout and name == _JOBS else _UNUSED_EVERY_S)
        stopped = wait(timeout)  # also when there is work: a queue may have no room for it
        if not stopped and name in queue_of:
            work.wait(queue_of[name])
        return stopped or event.is_set()

    return patient
