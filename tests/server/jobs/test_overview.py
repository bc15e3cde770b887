"""The overview says what the rows say and holds no text of users."""

import json
import time
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

import pytest
import sqlalchemy as sa

from server.api.access.key_table import KeyTable
from server.db.tables import metadata, progress_table, request_table, usage_table, webhook_table
from server.jobs.measurements import Measured, MeasurementTable
from server.jobs.overview_reader import OverviewReader
from server.jobs.usage_sums import Used
from server.jobs.worker_registry import WorkerRegistry

DAY = 86400.0
NOW = 20_000 * DAY + 5 * 3600.0
_PLAIN = {
    "owner": "alice",
    "input_json": '{"prompt": "my secret"}',
    "seed": "1",
    "base_url": "",
    "priority": 0,
    "created_at": NOW - 60,
}
_ENDED = {"status": "COMPLETED", "created_at": NOW - 100, "started_at": NOW - 90, "attempt": 1}


@pytest.fixture
def database(either_database: sa.Engine) -> Iterator[sa.Engine]:
    yield either_database
    with either_database.begin() as transaction:
        for table in reversed(metadata.sorted_tables):
            transaction.execute(table.delete())


def requests(database: sa.Engine, *rows: dict[str, Any]) -> None:
    with database.begin() as transaction:
        for number, row in enumerate(rows):
            values = {**_PLAIN, "id": f"r{number}", **row}
            transaction.execute(request_table.insert().values(**values))
            if "finished_at" in row:
                transaction.execute(usage_table.insert().values(**_record(values)))


def _record(row: dict[str, Any]) -> dict[str, Any]:
    outcome = row.get("error_type", "completed")
    return {
        "request_id": row["id"],
        "owner": row["owner"],
        "finished_at": row["finished_at"],
        "outcome": outcome,
        "gpu_seconds": 1.0,
    }


def reader(database: sa.Engine) -> OverviewReader:
    return OverviewReader(database, stale_s=20.0, clock=lambda: NOW)


def test_the_queue_is_told_in_its_order(database: sa.Engine) -> None:
    waiting = [{"status": "IN_QUEUE", "queue_order": 100 - number} for number in range(30)]
    low = {"id": "low", "status": "IN_QUEUE", "priority": 1, "queue_order": 1, "created_at": NOW - 500, "owner": "bob"}
    requests(database, *waiting, low)
    queue = reader(database).read().queue
    assert (queue.waiting, queue.oldest_wait_s, queue.running) == ({"normal": 30, "low": 1}, 500.0, 0)
    assert [job.request_id for job in queue.next] == [f"r{number}" for number in range(29, 9, -1)]
    assert {job.waited_s for job in queue.next} == {60.0}


def test_it_tells_what_each_job_does_now(database: sa.Engine) -> None:
    running = {"status": "IN_PROGRESS", "worker_id": "gpu-1", "started_at": NOW - 30, "attempt": 2, "faults": 1}
    lost = {**running, "worker_id": "gone"}
    requests(database, running, {**running, "cancel_requested": True, "video_key": "files/x"}, lost)
    step = {"request_id": "r0", "stage": "denoise", "done": 3, "total": 30, "seconds_left": 80.5, "at": NOW - 1}
    with database.begin() as transaction:
        transaction.execute(progress_table.insert().values(**step))
    WorkerRegistry(database, clock=lambda: NOW - 1).beat("gpu-1", pid=1, generator_pid=2, state="ready", detail="")
    first, second, third = reader(database).read().running
    assert (first.worker_id, first.attempt, first.faults, first.running_s) == ("gpu-1", 2, 1, 30.0)
    assert (first.stage, first.done, first.total, first.seconds_left, first.reported_s) == ("denoise", 3, 30, 80.5, 1.0)
    assert (first.cancelled, first.rendered) == (False, False)
    assert (first.lost, second.lost, third.lost) == (False, False, True)
    assert (second.cancelled, second.rendered, second.stage, second.reported_s) == (True, True, None, None)


def test_failures_are_told_with_their_reason_and_without_the_input(database: sa.Engine) -> None:
    invalid = {"detail": [{"loc": ["body", "fps"], "msg": "Input should be less", "type": "t", "input": "my secret"}]}
    lost = {"detail": "The generator stopped", "error_type": "runner_disconnected"}
    kinds: list[dict[str, Any]] = [
        {"error_type": "client_cancelled", "response_status": 499, "response_json": "{}", "error": "cancelled"},
        {"error_type": "validation_error", "response_status": 422, "response_json": json.dumps(invalid), "error": "x"},
        {"error_type": "runner_disconnected", "response_status": 503, "response_json": json.dumps(lost), "faults": 3,
         "error": "The generator stopped"},
        {"response_status": 200},
    ]  # fmt: skip
    requests(database, *({**_ENDED, "finished_at": NOW - 10 + at, **kind} for at, kind in enumerate(kinds)))
    found = reader(database).read().failures
    assert [(one.status, one.message, one.faults, one.ended_s) for one in found] == [
        (503, "The generator stopped", 3, 8.0),
        (422, "fps: Input should be less", 0, 9.0),
    ]


def test_undelivered_webhooks_stay_in_sight(database: sa.Engine) -> None:
    common = {"url": "https://user:word@hooks.example:8443/token", "attempts": 2, "outcome": "HTTP 500"}
    states = ["failed", "pending", *["delivered"] * 30]
    with database.begin() as transaction:
        for number, state in enumerate(states):
            row = {**common, "request_id": f"r{number}", "state": state, "next_at": NOW + 5 + number}
            transaction.execute(webhook_table.insert().values(**row))
    requests(database, {**_ENDED, "finished_at": NOW, "response_status": 200})
    webhooks = reader(database).read().webhooks
    assert (webhooks.failed, webhooks.pending, len(webhooks.latest)) == (1, 1, 22)
    first, second, third, *_ = webhooks.latest
    assert (first.request_id, first.owner, first.state, first.host, first.due_s) == (
        "r0", "alice", "failed", "hooks.example:8443", None,
    )  # fmt: skip
    assert (second.state, second.due_s, second.owner) == ("pending", 6.0, None)
    assert (third.request_id, third.state) == ("r31", "delivered")


def test_usage_is_told_by_day_also_when_days_pass(database: sa.Engine) -> None:
    now = [NOW]
    long_running = OverviewReader(database, stale_s=1.0, clock=lambda: now[0])

    def use(number: int, at: float, owner: str = "alice") -> None:
        row = {"request_id": f"u{number}", "owner": owner, "outcome": "completed", "gpu_seconds": 2.0, "frames": 81}
        with database.begin() as transaction:
            transaction.execute(usage_table.insert().values(**row, finished_at=at))

    midnight = 20_000 * DAY
    for number, at in enumerate([NOW, midnight, midnight - 1, midnight - 6 * DAY, midnight - 6 * DAY - 1, 5.0]):
        use(number, at)
    use(10, NOW - 300 * DAY, "bob")
    for passed_days in range(9):
        for view in (long_running, OverviewReader(database, stale_s=1.0, clock=lambda: now[0])):
            alice, bob = view.read().usage
            today, week = {0: (2, 4), 1: (0, 3), 5: (0, 3), 6: (0, 2)}.get(passed_days, (None, None))
            assert (alice.owner, bob.owner) == ("alice", "bob")
            if today is not None and week is not None:
                assert (alice.today.jobs, alice.week.jobs) == (today, week)
            assert alice.all == Used(6, 12.0, 486)
            assert (bob.week, bob.all) == (Used(), Used(1, 2.0, 81))
        now[0] += DAY
    assert long_running.read().usage[0].week == Used()


def test_workers_and_their_memory(database: sa.Engine) -> None:
    gpu = {"gpu": 0, "used_bytes": 3, "peak_bytes": 2, "total_bytes": 5}
    for name, at in (("gpu-1", NOW - 1), ("gpu-2", NOW - 21)):
        beats = WorkerRegistry(database, clock=lambda at=at: at)  # type: ignore[misc]
        beats.beat(name, pid=1, generator_pid=2, state="ready", detail="warm")
        measured = Measured(gpus=[gpu, {**gpu, "gpu": 1}], attempts={"rendered": 4})
        MeasurementTable(database).write(name, measured.model_dump_json())
    WorkerRegistry(database).drain(True)
    KeyTable(database).create("alice")
    KeyTable(database).revoke(KeyTable(database).create("bob").partition(":")[0], in_s=NOW - time.time() - 60)
    found = reader(database).read()
    assert [(one.id, one.stale, one.heartbeat_age_s, one.draining) for one in found.workers] == [
        ("gpu-1", False, 1.0, True),
        ("gpu-2", True, 21.0, True),
    ]
    assert [memory["gpu"] for memory in found.workers[0].gpus] == [0, 1]
    assert (found.attempts, found.keys) == ({"rendered": 8}, 1)
    assert found.database_bytes > 100_000


def test_no_text_of_a_user_is_in_it(database: sa.Engine) -> None:
    requests(database, {"status": "IN_QUEUE"}, {"status": "IN_PROGRESS"}, {**_ENDED, "finished_at": NOW})
    assert "secret" not in json.dumps(asdict(reader(database).read()))
