"""What a worker measures reaches the database, and goes on from there after a restart."""

from typing import Literal

import pytest
import sqlalchemy as sa

from server.db.tables import measurement_table
from server.generator.faults import GeneratorDied, OutOfMemory
from server.generator.messages import Log, Working
from server.generator.state import GpuMemory
from server.jobs.measurements import BOUNDS, Measured, MeasurementTable, together
from server.worker.measuring import MeasurementReport, Measuring
from tests.harness.clock import Clock

GPU = GpuMemory(gpu=0, used_bytes=3, peak_bytes=2, total_bytes=5)


@pytest.fixture
def clock() -> Clock:
    return Clock(100.0)


@pytest.fixture
def measuring(clock: Clock) -> Measuring:
    return Measuring(clock)


def measured(measuring: Measuring) -> Measured:
    return Measured.model_validate_json(measuring.as_json([]))


def test_the_stages_of_an_attempt_add_up_to_it(measuring: Measuring, clock: Clock) -> None:
    said: list[tuple[float, Literal["encode", "denoise", "decode"]]] = [
        (2, "encode"),
        (1, "encode"),
        (7, "denoise"),
        (8, "denoise"),
        (4, "decode"),
    ]
    with measuring.attempt() as times:
        for seconds, stage in said:
            clock.now += seconds
            times.on_message(Working(stage=stage, done=1, total=9))
            times.on_message(Log(message="a line"))
        clock.now += 0.5  # the end of the file
    found = measured(measuring)
    assert {name: stage.sum_s for name, stage in found.stages.items()} == {"encode": 3, "denoise": 15, "decode": 4.5}
    assert found.attempts == {"rendered": 1}
    assert found.steps.counts == [0] * (len(BOUNDS) + 1)


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (GeneratorDied("killed"), "generator_lost"),
        (OutOfMemory("no room"), "out_of_memory"),
        (ZeroDivisionError(), "failed"),
    ],
)
def test_an_attempt_counts_by_how_it_ends(measuring: Measuring, error: Exception, reason: str) -> None:
    with pytest.raises(type(error)), measuring.attempt() as times:
        times.on_message(Working(stage="encode", done=1, total=1))
        raise error
    assert measured(measuring).attempts == {reason: 1}
    assert not measured(measuring).stages


def test_a_duration_is_counted_up_to_and_including_its_bound(measuring: Measuring) -> None:
    for seconds in (BOUNDS[0], BOUNDS[0] + 1e-9, BOUNDS[-1] + 1):
        measuring.step_took(seconds)
    counts = measured(measuring).steps.counts
    assert (counts[0], counts[1], counts[-1]) == (1, 1, 1)


def test_a_restarted_worker_goes_on_from_its_row(database: sa.Engine) -> None:
    table = MeasurementTable(database)
    for _ in range(2):
        measuring = Measuring()
        report = MeasurementReport(table, measuring, worker_id="w")
        measuring.attempt_ended("rendered")  # one may end before the first heartbeat
        report.write([GPU])
        measuring.stage_took("decode", 2.0)
        report.write([GPU])
    found = table.all()["w"]
    assert found.attempts == {"rendered": 2}
    assert found.stages["decode"].sum_s == 4.0
    assert found.gpus == [GPU.model_dump()]


def test_without_news_nothing_is_written(database: sa.Engine) -> None:
    times = iter([1.0, 2.0])
    measuring, table = Measuring(), MeasurementTable(database, clock=lambda: next(times))
    report = MeasurementReport(table, measuring, worker_id="w")
    report.write([])
    report.write([])
    measuring.step_took(1.0)
    report.write([])
    with database.connect() as connection:
        assert connection.execute(sa.select(measurement_table.c.at)).scalar_one() == 2.0


def test_workers_are_added_up_and_rows_of_other_versions_left_out(database: sa.Engine) -> None:
    table = MeasurementTable(database)
    for worker_id in ("a", "b"):
        one = Measured()
        one.count_attempt("rendered")
        one.stage("encode").add(1.0)
        table.write(worker_id, one.model_dump_json())
    table.write("c", '{"attempts": {"rendered": 9}, "steps": {"counts": [1, 2], "sum_s": 3}}')
    total = together(table.all().values())
    assert (total.attempts, total.stages["encode"].sum_s) == ({"rendered": 2}, 2.0)
