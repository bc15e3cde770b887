"""What only workers can measure, on its way to those who read metrics: one row per worker, written with its heartbeat.

Counts and durations are sums since the worker's first start. Rows stay when workers are gone, so no sum ever falls.
"""

import time
from bisect import bisect_left
from collections.abc import Callable, Iterable
from typing import Annotated, Final

import sqlalchemy as sa
from pydantic import BaseModel, Field, ValidationError

from server.db.tables import measurement_table

# Seconds; the demo's step takes a twentieth of one, a step at full size up to minutes, a decode up to half an hour.
BOUNDS: Final = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 25.0, 50.0, 100.0, 250.0, 500.0, 1000.0, 2500.0)
_BUCKETS: Final = len(BOUNDS) + 1  # the last one is for what takes longer


class Durations(BaseModel):
    """How many took how long: `counts` by bucket (up to and including each bound), `sum_s` in all."""

    counts: Annotated[list[int], Field(min_length=_BUCKETS, max_length=_BUCKETS)] = [0] * _BUCKETS
    sum_s: float = 0.0

    def add(self, seconds: float) -> None:
        """Count one."""
        self.counts[bisect_left(BOUNDS, seconds)] += 1
        self.sum_s += seconds

    def add_all(self, others: "Durations") -> None:
        """Count all of another worker's."""
        self.counts = [ours + theirs for ours, theirs in zip(self.counts, others.counts, strict=True)]
        self.sum_s += others.sum_s


class Measured(BaseModel):
    """Of one worker, or of several together."""

    attempts: dict[str, int] = {}  # by how they ended
    stages: dict[str, Durations] = {}
    steps: Durations = Durations()
    gpus: list[dict[str, int]] = []  # as they were last seen: the fields of `generator.state.GpuMemory`

    def count_attempt(self, reason: str) -> None:
        """Count one more."""
        self.attempts[reason] = self.attempts.get(reason, 0) + 1

    def stage(self, name: str) -> Durations:
        """The durations of that stage."""
        return self.stages.setdefault(name, Durations())


def together(parts: Iterable[Measured]) -> Measured:
    """The sums of all; GPUs belong to one worker and are left out."""
    total = Measured()
    for part in parts:
        for reason, count in part.attempts.items():
            total.attempts[reason] = total.attempts.get(reason, 0) + count
        for name, durations in part.stages.items():
            total.stage(name).add_all(durations)
        total.steps.add_all(part.steps)
    return total


class MeasurementTable:
    """The `worker_measurement` table. `clock` gives Unix seconds."""

    def __init__(self, database: sa.Engine, clock: Callable[[], float] = time.time) -> None:
        self._database = database
        self._clock = clock

    def write(self, worker_id: str, measured_json: str) -> None:
        """Replace what this worker has measured."""
        values = {"measured_json": measured_json, "at": self._clock()}
        known = measurement_table.update().where(measurement_table.c.worker_id == worker_id).values(**values)
        with self._database.begin() as transaction:
            if not transaction.execute(known).rowcount:
                transaction.execute(measurement_table.insert().values(worker_id=worker_id, **values))

    def all(self) -> dict[str, Measured]:
        """By worker. What another version wrote with other buckets is left out."""
        with self._database.connect() as connection:
            return all_measured(connection)


def all_measured(connection: sa.Connection) -> dict[str, Measured]:
    """The same, as this transaction sees it."""
    query = sa.select(measurement_table.c.worker_id, measurement_table.c.measured_json)
    read = {row.worker_id: _read(row.measured_json) for row in connection.execute(query)}
    return {worker_id: measured for worker_id, measured in read.items() if measured is not None}


def _read(measured_json: str) -> Measured | None:
    try:
        return Measured.model_validate_json(measured_json)
    except ValidationError:
        return None
