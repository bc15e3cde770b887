"""The job store of a worker: its calls wait out an outage of the database instead of failing a job.

Each may be repeated after its answer was lost. A repeated claim counts one attempt more, which is the truth as far as
anybody can know it.
"""

from collections.abc import Callable
from typing import Concatenate, ParamSpec, TypeVar

from server.db.outage import is_outage, ride_out
from server.jobs.job import Job
from server.jobs.job_store import JobStore

P = ParamSpec("P")
R = TypeVar("R")


def _patient(method: Callable[Concatenate[JobStore, P], R]) -> Callable[Concatenate[JobStore, P], R]:
    def patient(store: JobStore, /, *args: P.args, **kwargs: P.kwargs) -> R:
        return ride_out(method, store, *args, **kwargs)

    return patient


class PatientJobStore(JobStore):
    """What workflows call. Log lines are not waited for here: `JobLog` keeps them until they can be written. Nor is
    `release`, which a worker that stops calls as well.
    """

    get = _patient(JobStore.get)
    prepared = _patient(JobStore.prepared)
    claim = _patient(JobStore.claim)
    rendered = _patient(JobStore.rendered)
    render_again = _patient(JobStore.render_again)
    complete = _patient(JobStore.complete)
    finish_cancelled = _patient(JobStore.finish_cancelled)
    fail = _patient(JobStore.fail)
    refuse = _patient(JobStore.refuse)
    is_over = _patient(JobStore.is_over)

    def is_unwanted(self, job: Job) -> bool:
        """Not as far as anybody knows, while the database is away: the job renders on."""
        try:
            return super().is_unwanted(job)
        except Exception as error:
            if not is_outage(error):
                raise
            return False
