"""What the workers of this machine cannot say of themselves: that they have ended.

Without it a worker that was ready when it ended would count as ready until its heartbeat is stale, or its successor is
heard of.
"""

import logging
import threading
from collections.abc import Sequence

from server.db.connection import create_engine
from server.db.outage import is_outage
from server.generator.state import WORKER_STOPPED
from server.jobs.worker_registry import WorkerRegistry

logger = logging.getLogger(__name__)


class WorkerRows:
    """The rows of workers whose ids this process has locked."""

    def __init__(self, database_url: str, worker_ids: Sequence[str]) -> None:
        self._database_url = database_url
        self._worker_ids = worker_ids

    def stopped(self) -> None:
        """None of them runs; whichever ran before, and however it ended."""
        self._correct(None)

    def on_end(self, role: str, pid: int) -> None:
        """A process has ended. Not on the caller's thread: the database may be away, or not answer for a while."""
        if role == "worker":
            try:
                threading.Thread(target=self._correct, args=(pid,), name="worker-rows", daemon=True).start()
            except RuntimeError as error:  # no memory for a thread, say; the caller's must go on
                logger.warning("the row of an ended worker is left as it was: %s", error)

    def _correct(self, pid: int | None) -> None:
        state, detail = WORKER_STOPPED.phase, WORKER_STOPPED.detail
        database = create_engine(self._database_url)  # seldom needed: no connection is kept
        try:
            WorkerRegistry(database).correct(self._worker_ids, state=state, detail=detail, pid=pid)
        except Exception as error:
            if not is_outage(error):
                logger.exception("the rows of ended workers are left as they were")
        finally:
            database.dispose()
