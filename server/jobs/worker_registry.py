"""The workers of this deployment: one row each, kept fresh by a heartbeat."""

import time
from collections.abc import Callable, Collection
from dataclasses import dataclass

import sqlalchemy as sa

from server.db.tables import literal, request_table, worker_table
from server.jobs.dbos_queues import executors_at_work
from server.jobs.job import Status


@dataclass(frozen=True, slots=True)
class Worker:
    """One row. `state` is the generator's: loading, ready, idle, failed or stopped; `detail` says it in words."""

    id: str
    pid: int
    generator_pid: int | None
    state: str
    detail: str
    draining: bool
    heartbeat_at: float


_columns = [worker_table.c[name] for name in Worker.__slots__]


class WorkerRegistry:
    """The `worker` table. `clock` gives Unix seconds."""

    def __init__(self, database: sa.Engine, clock: Callable[[], float] = time.time) -> None:
        self._database = database
        self._clock = clock

    def beat(self, worker_id: str, *, pid: int, generator_pid: int | None, state: str, detail: str) -> bool:
        """Record that a worker runs; returns whether it has been asked to take no more jobs."""
        values = {
            "pid": pid,
            "generator_pid": generator_pid,
            "state": state,
            "detail": detail,
            "heartbeat_at": self._clock(),
        }
        known = worker_table.update().where(worker_table.c.id == worker_id).values(**values)
        with self._database.begin() as transaction:
            draining = transaction.execute(known.returning(worker_table.c.draining)).scalar_one_or_none()
            if draining is None:
                transaction.execute(worker_table.insert().values(id=worker_id, **values))
        return bool(draining)

    def correct(self, worker_ids: Collection[str], *, state: str, detail: str, pid: int | None = None) -> None:
        """Say what workers cannot say themselves, until they are heard of again; with a `pid`, of that process alone.

        Heartbeats stay as they were: by them others notice that a worker is gone.
        """
        rows = worker_table.update().where(worker_table.c.id.in_(worker_ids))
        if pid is not None:
            rows = rows.where(worker_table.c.pid == pid)
        with self._database.begin() as transaction:
            transaction.execute(rows.values(state=state, detail=detail, generator_pid=None))

    def all(self) -> list[Worker]:
        """Every worker that has not been forgotten."""
        with self._database.connect() as connection:
            return registered(connection)

    def heartbeats(self) -> dict[str, float | None]:
        """Of all registered workers; None of those that have work without being registered (any more)."""
        registered = sa.select(worker_table.c.id, worker_table.c.heartbeat_at)
        at_work = executors_at_work(self._database).subquery()
        everyone = registered.union_all(sa.select(at_work.c.executor_id, sa.null()))
        with self._database.connect() as connection:
            found = connection.execute(everyone).all()
        return dict.fromkeys(row[0] for row in found) | {row[0]: row[1] for row in found if row[1] is not None}

    def fresh(self, within_s: float) -> list[Worker]:
        """Workers heard of within the last `within_s` seconds."""
        return [worker for worker in self.all() if self.age_s(worker) < within_s]

    def age_s(self, worker: Worker) -> float:
        """Since it was last heard of; 0 where the clock was put back."""
        return max(0.0, self._clock() - worker.heartbeat_at)

    def count_running(self, worker_ids: Collection[str]) -> int:
        """How many jobs these workers have in progress."""
        query = sa.select(sa.func.count()).where(
            request_table.c.status == literal(Status.IN_PROGRESS), request_table.c.worker_id.in_(worker_ids)
        )
        with self._database.connect() as connection:
            return connection.execute(query).scalar_one()

    def forget(self, worker_id: str) -> None:
        """Remove a worker that is gone; if it comes back, its next beat adds it again.

        One that was asked to drain is kept, so that it still drains when it comes back.
        """
        gone = worker_table.delete().where(worker_table.c.id == worker_id, worker_table.c.draining.is_(False))
        with self._database.begin() as transaction:
            transaction.execute(gone)

    def drain(self, draining: bool) -> None:
        """Ask all workers to finish what they have and take no more, or to go on.

        When this returns, none that is registered claims another job.
        """
        with self._database.begin() as transaction:
            transaction.execute(worker_table.update().values(draining=draining))


def may_claim(transaction: sa.Connection, worker_id: str) -> bool:
    """Whether a worker has not been asked to drain; asked after a write of the same transaction.

    What is read then stays true until the end of the transaction: SQLite has one writer, Postgres locks the row.
    """
    asked = sa.select(worker_table.c.draining).where(worker_table.c.id == worker_id).with_for_update(read=True)
    return not transaction.execute(asked).scalar_one_or_none()


def registered(connection: sa.Connection) -> list[Worker]:
    """Every worker that has not been forgotten, as this transaction sees them."""
    return [Worker(*row) for row in connection.execute(sa.select(*_columns).order_by(worker_table.c.id))]
