"""Totals are those of a plain count over all rows, whenever they were read before."""

import sqlalchemy as sa

from server.db.tables import request_table, usage_table, webhook_table
from server.fal.submit_headers import Priority
from server.jobs.totals import TotalsReader
from server.jobs.usage_sums import Used

HOUR = 3600.0


def finish(database: sa.Engine, at: float, outcome: str = "completed") -> None:
    row = {"request_id": f"{outcome}-{at}", "owner": "o", "finished_at": at, "outcome": outcome, "gpu_seconds": 2.0}
    with database.begin() as transaction:
        transaction.execute(usage_table.insert().values(**row))


def test_totals_go_on_while_hours_pass(either_database: sa.Engine) -> None:
    now = [10 * HOUR]
    long_running = TotalsReader(either_database, clock=lambda: now[0])
    assert long_running.read().ended == {}
    for hour in range(1, 6):
        finish(either_database, now[0] - 0.9 * HOUR)  # by a worker whose clock is behind
        finish(either_database, now[0])
        finish(either_database, now[0] - 0.5, "client_cancelled")
        expected = {"completed": Used(2 * hour, 4.0 * hour), "client_cancelled": Used(hour, 2.0 * hour)}
        assert long_running.read().ended == expected
        assert TotalsReader(either_database, clock=lambda: now[0]).read().ended == expected
        now[0] += 0.7 * HOUR


def test_open_requests_and_undelivered_webhooks(either_database: sa.Engine) -> None:
    common = {"owner": "o", "input_json": "{}", "seed": "1", "base_url": "", "priority": 0}
    rows = [
        {**common, "id": "1", "status": "IN_QUEUE", "created_at": 70.0},
        {**common, "id": "2", "status": "IN_QUEUE", "created_at": 40.0, "priority": 1},
        {**common, "id": "3", "status": "IN_PROGRESS", "created_at": 10.0},
        {**common, "id": "4", "status": "COMPLETED", "created_at": 1.0, "finished_at": 2.0},
    ]
    hooks = [{"request_id": str(i), "url": "", "state": state, "next_at": 1.0} for i, state in enumerate("pdf")]
    names = {"p": "pending", "d": "delivered", "f": "failed"}
    with either_database.begin() as transaction:
        for row in rows:
            transaction.execute(request_table.insert().values(**row))
        transaction.execute(webhook_table.insert(), [{**hook, "state": names[str(hook["state"])]} for hook in hooks])
    totals = TotalsReader(either_database, clock=lambda: 100.0).read()
    assert totals.waiting == {Priority.NORMAL: 1, Priority.LOW: 1}
    assert (totals.oldest_wait_s, totals.running) == (60.0, 1)
    assert totals.webhooks == {"pending": 1, "failed": 1}
