"""What a submit, a look for deadlines, a page of an owner's history and an overview cost does not depend on how many
finished requests are kept."""

import re
from typing import Any

import sqlalchemy as sa
from dbos import DBOSClient

from server.db.tables import request_table
from server.jobs.fair_queue import Caps
from server.jobs.history import History
from server.jobs.job_store import JobStore
from server.jobs.overview_reader import OverviewReader
from tests.harness.new_job import new_job

KEPT = 3000
_STEP = 10


def test_a_submit_costs_the_same_with_many_finished_requests(database: sa.Engine, engine: DBOSClient) -> None:
    """Counted in instructions of SQLite's machine, which do not depend on what else this machine does."""
    counted = [0]

    def count(_connection: object, cursor: Any, *_: Any) -> None:
        def on_progress() -> int:
            counted[0] += _STEP
            return 0

        cursor.connection.set_progress_handler(on_progress, _STEP)

    store, history = JobStore(database, engine, caps=Caps(total=100, per_owner=100)), History(database)

    def cost() -> int:
        counted[0] = 0
        store.add(new_job(start_deadline=1.0, owner="o"))
        store.open_jobs(older_than_s=0)
        assert store.expire_overdue() == 1
        history.page("o", limit=1)
        return counted[0]

    cost()  # what is done once
    cost()
    sa.event.listen(database, "before_cursor_execute", count)
    before = cost()
    kept = [{**_FINISHED, "id": str(number), "queue_order": number} for number in range(KEPT)]
    with database.begin() as transaction:
        transaction.execute(sa.insert(request_table), kept)
    assert cost() < 1.3 * before


def test_an_overview_reads_no_table_from_end_to_end(database: sa.Engine) -> None:
    overview = OverviewReader(database, stale_s=1.0)
    overview.read()  # usage records are read once
    asked: list[tuple[str, Any]] = []

    def note(_connection: object, _cursor: object, statement: str, parameters: Any, *_: object) -> None:
        asked.append((statement, parameters))

    sa.event.listen(database, "before_cursor_execute", note)
    overview.read()
    sa.event.remove(database, "before_cursor_execute", note)
    selects = [(statement, parameters) for statement, parameters in asked if statement.startswith("SELECT")]
    with database.connect() as connection:
        plans = [
            str(step[3])
            for statement, parameters in selects
            for step in connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", parameters)
        ]
    assert len(selects) > 10
    assert any("request" in plan for plan in plans)
    assert not [plan for plan in plans if re.fullmatch(r"SCAN (request|webhook|usage_record|progress)", plan)]


_FINISHED = {
    "owner": "o",
    "status": "COMPLETED",
    "priority": 0,
    "input_json": "null",
    "seed": "1",
    "base_url": "",
    "created_at": 1.0,
    "finished_at": 2.0,
    "response_status": 422,
    "response_json": "{}",
}
