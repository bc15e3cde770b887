"""Ends requests that were not started in the time their senders gave (X-Fal-Request-Timeout).

The API does it, not a worker: a deadline matters most while no worker runs.
"""

import asyncio
import logging

from starlette.concurrency import run_in_threadpool

from server.db.outage import OUTAGES, is_outage
from server.jobs.job_store import JobStore

logger = logging.getLogger(__name__)


async def keep_deadlines(store: JobStore, *, every_s: float) -> None:
    """Look for overdue requests until cancelled; several API processes doing so do no harm."""
    while True:
        try:
            await run_in_threadpool(store.expire_overdue)
        except Exception as error:
            if is_outage(error):
                OUTAGES.noticed(error)
            else:
                logger.exception("overdue requests could not be ended; trying again")
        else:
            OUTAGES.written()
        await asyncio.sleep(every_s)
