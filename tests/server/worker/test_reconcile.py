"""Jobs that DBOS has forgotten, or whose workflows ended without ending them."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from dbos import DBOSClient

from server.db.connection import create_engine
from server.db.migrations import migrate
from server.jobs.dbos_queues import dbos_client
from server.jobs.job import Status
from server.jobs.job_store import JobStore
from server.worker.reconcile import reconcile
from tests.harness.clock import Clock
from tests.harness.new_job import new_job

AGE_S = 60.0


@pytest.fixture
def clock() -> Clock:
    return Clock(1_000_000.0)


@pytest.fixture
def parts(tmp_path: Path, clock: Clock) -> Iterator[tuple[JobStore, DBOSClient]]:
    url = f"sqlite:///{tmp_path / 'x.sqlite'}"
    migrate(url, tmp_path / "lock")
    database = create_engine(url)
    dbos = dbos_client(database)
    yield JobStore(database, dbos, clock), dbos
    dbos.destroy()
    database.dispose()


def test_a_job_that_dbos_has_forgotten_is_queued_again_once_it_is_old_enough(
    parts: tuple[JobStore, DBOSClient], clock: Clock
) -> None:
    store, dbos = parts
    job = new_job()
    store.add(job)
    dbos.delete_workflows([f"{job.id}:prepare"])
    reconcile(store, dbos, older_than_s=AGE_S)
    assert dbos.list_workflows() == [], "it may be between two workflows"
    clock.now += AGE_S + 1
    reconcile(store, dbos, older_than_s=AGE_S)
    assert [one.workflow_id for one in dbos.list_workflows()] == [f"{job.id}:prepare"]


@pytest.mark.parametrize(("cancelled", "status"), [(False, 500), (True, 499)])
def test_a_job_whose_workflows_ended_without_it_ends(
    parts: tuple[JobStore, DBOSClient], clock: Clock, cancelled: bool, status: int
) -> None:
    store, dbos = parts
    job = new_job()
    store.add(job)
    assert store.claim(job.id, "w") is not None
    if cancelled:
        store.cancel(job.id)
    dbos.cancel_workflow(f"{job.id}:prepare")
    clock.now += AGE_S + 1
    reconcile(store, dbos, older_than_s=AGE_S)
    ended = store.get(job.id)
    assert ended is not None
    assert (ended.status, ended.response_status) == (Status.COMPLETED, status)


def test_a_job_with_a_workflow_under_way_is_left_alone(parts: tuple[JobStore, DBOSClient], clock: Clock) -> None:
    store, dbos = parts
    job = new_job()
    store.add(job)
    clock.now += AGE_S + 1
    reconcile(store, dbos, older_than_s=AGE_S)
    open_job = store.get(job.id)
    assert open_job is not None
    assert open_job.status is Status.IN_QUEUE
