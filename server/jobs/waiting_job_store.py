"""The job store of a worker: its calls wait until the database answers instead of failing a job.

Each may be repeated after its answer was lost. A repeated claim counts one attempt more, since the first may have been
made.
"""

from collections.abc import Callable
from typing import Concatenate, ParamSpec, TypeVar

from server.db.outage import is_outage, ride_out
from server.jobs.job import Job
from server.jobs.job_store import JobStore

P = ParamSpec("P")
R = TypeVar("R")


def _waiting(method: Callable[Concatenate[JobStore, P], R]) -> Callable[Concatenate[JobStore, P], R]:
    def waiting(store: JobStore, /, *args: P.args, **kwargs: P.kwargs) -> R:
        return ride_out(method, store, *args, **kwargs)

    return waiting


class WaitingJobStore(JobStore):
    """What workflows call. `log` does not wait, since `JobLog` keeps its lines until they can be written; nor does
    `release`, which a worker also calls when it stops.
    """

    get = _waiting(JobStore.get)
    prepared = _waiting(JobStore.prepared)
    claim = _waiting(JobStore.claim)
    rendered = _waiting(JobStore.rendered)
    render_again = _waiting(JobStore.render_again)
    complete = _waiting(JobStore.complete)
    finish_cancelled = _waiting(JobStore.finish_cancelled)
    fail = _waiting(JobStore.fail)
    refuse = _waiting(JobStore.refuse)
    is_over = _waiting(JobStore.is_over)

    def is_unwanted(self, job: Job) -> bool:
        """Assumed to be wanted while the database is away: the job renders on."""
        try:
            return super().is_unwanted(job)
        except Exception as error:
            if not is_outage(error):
                raise
            return False
