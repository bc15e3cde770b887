"""When a worker counts as gone: its work is taken over, and no pause or clock takes work away from one that is not."""

from typing import Any

import pytest
import sqlalchemy as sa

from server.errors import INTERNAL_ERROR
from server.jobs.dbos_queues import dbos_client
from server.jobs.job_store import JobStore
from server.jobs.worker_registry import WorkerRegistry
from server.worker.takeover import Reaper
from tests.harness.new_job import new_job


@pytest.fixture(scope="module")
def database(either_database: sa.Engine) -> sa.Engine:
    return either_database


def test_work_of_a_worker_that_never_registered_is_taken_over(database: sa.Engine) -> None:
    dbos, now = dbos_client(database), [0.0]
    store = JobStore(database, dbos)
    job = new_job()
    store.add(job)
    columns: list[sa.ColumnClause[Any]] = [sa.column(name) for name in ("name", "status", "executor_id")]
    workflow = sa.table("workflow_status", *columns, schema="dbos" if database.dialect.name == "postgresql" else None)
    dequeued = workflow.update().where(workflow.c.name == "prepare").values(status="PENDING", executor_id="x")
    with database.begin() as transaction:
        transaction.execute(dequeued)
    reaper = Reaper(WorkerRegistry(database), dbos, own_id="observer", stale_s=20, clock=lambda: now[0])
    for _ in range(12):
        assert dbos.list_workflows(executor_id="x", status="PENDING")
        reaper.sweep()
        now[0] += 2
    reaper.sweep()
    assert not dbos.list_workflows(executor_id="x", status="PENDING")
    store.fail(job.id, INTERNAL_ERROR)
    dbos.destroy()


def test_a_pause_of_the_observer_takes_no_work_away(database: sa.Engine) -> None:
    registry, dbos, now = WorkerRegistry(database), dbos_client(database), [0.0]
    reaper = Reaper(registry, dbos, own_id="observer", stale_s=20, clock=lambda: now[0])
    registry.beat("frozen", pid=1, generator_pid=2, state="ready", detail="")
    reaper.sweep()
    now[0] += 3600  # the whole machine was suspended
    reaper.sweep()
    now[0] += 2
    reaper.sweep()
    assert "frozen" in {worker.id for worker in registry.all()}
    registry.forget("frozen")
    dbos.destroy()


@pytest.mark.parametrize("clock_jump_s", [-3600.0, 3600.0])
def test_a_jumping_clock_takes_no_work_away(database: sa.Engine, clock_jump_s: float) -> None:
    """Workers are judged by whether their heartbeat changes, on the observer's monotonic clock."""
    wall, monotonic = [1_000_000.0], [0.0]
    registry = WorkerRegistry(database, clock=lambda: wall[0])
    dbos = dbos_client(database)
    reaper = Reaper(registry, dbos, own_id="observer", stale_s=20, clock=lambda: monotonic[0])

    def beat() -> None:
        registry.beat("w", pid=1, generator_pid=2, state="ready", detail="")

    beat()
    reaper.sweep()
    wall[0] += clock_jump_s
    for _ in range(30):
        monotonic[0] += 2
        wall[0] += 2
        beat()
        reaper.sweep()
    assert [worker.id for worker in registry.all()] == ["w"]
    for _ in range(11):
        monotonic[0] += 2
        reaper.sweep()
    assert registry.all() == []
    dbos.destroy()
