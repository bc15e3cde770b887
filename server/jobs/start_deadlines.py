"""Ends requests that were not started in the time their senders gave (X-Fal-Request-Timeout).

The API does it, not a worker: a deadline matters most while no worker runs.
"""

import asyncio
import logging
import time
from collections.abc import Callable

from starlette.concurrency import run_in_threadpool

from server.db.outage import OUTAGES, is_outage
from server.jobs.job_store import JobStore
from server.jobs.status_reads import StatusReads

logger = logging.getLogger(__name__)


async def keep_deadlines(
    store: JobStore, reads: StatusReads, *, every_s: float, clock: Callable[[], float] = time.time
) -> None:
    """Look for overdue requests until cancelled; several API processes doing so do no harm.

    A look is a read. During an outage it is a write each time, which shows when that is over.
    """
    while True:
        try:
            if OUTAGES.lasting or await reads.some_overdue(clock()):
                await run_in_threadpool(store.expire_overdue)
                OUTAGES.written()
        except Exception as error:
            if is_outage(error):
                OUTAGES.noticed(error)
            else:
                logger.exception("overdue requests could not be ended; trying again")
        await asyncio.sleep(every_s)
