"""The hot path's plain SQL says what the store says, and uses its indexes."""

import asyncio
import sqlite3

import pytest
import sqlalchemy as sa

from server.db.connection import create_engine
from server.db.migrations import migrate
from server.db.tables import log_table, request_table
from server.jobs import status_reads
from server.jobs.status_reads import JobState, SqliteRows, StatusReads, open_rows


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> sa.Engine:
    """3000 waiting jobs in two priorities, and every tenth one running."""
    folder = tmp_path_factory.mktemp("reads")
    url = f"sqlite:///{folder / 'x.sqlite'}"
    migrate(url, folder / "lock")
    engine = create_engine(url)
    plain = {"owner": "o", "input_json": "{}", "seed": "1", "base_url": "http://h", "created_at": 0.0}
    rows = [
        {
            **plain,
            "id": f"r{number}",
            "queue_order": number + 1,
            "priority": number % 2,
            "status": "IN_PROGRESS" if number % 10 == 0 else "IN_QUEUE",
        }
        for number in range(3000)
    ]
    lines = [
        {"request_id": f"r{number}", "message": f"m{number}", "level": "INFO", "at": 1.5} for number in range(50)
    ] * 2
    with engine.begin() as transaction:
        transaction.execute(request_table.insert(), rows)
        transaction.execute(log_table.insert(), lines)
    return engine


def _expected(number: int) -> int:
    """By priority, then by queue order; running jobs are in no queue."""
    waiting = [n for n in range(3000) if n % 10]
    return sum((n % 2, n) < (number % 2, number) for n in waiting)


def _state(database: sa.Engine, number: int) -> JobState:
    state = asyncio.run(StatusReads(open_rows(database)).state(f"r{number}", owner="o"))
    assert state is not None
    return state


@pytest.mark.parametrize("number", [2, 4, 1998, 2998, 1, 2999])
def test_positions_are_right_counted_or_from_the_copy(database: sa.Engine, number: int) -> None:
    reads = StatusReads(open_rows(database))
    state = _state(database, number)
    assert asyncio.run(reads.position(state)) == _expected(number)
    assert asyncio.run(reads.recent_position(state)) == _expected(number)


def test_a_deep_queue_is_read_once_for_many(database: sa.Engine) -> None:
    time = 100.0
    rows = SqliteRows(str(database.url.database))
    asked: list[str] = []

    class Counting:
        watched = rows.watched

        async def __call__(self, sql: str, parameters: dict[str, object]) -> list[status_reads.Row]:
            asked.append(sql)
            return await rows(sql, parameters)

    reads = StatusReads(Counting(), clock=lambda: time)  # type: ignore[arg-type]
    states = [_state(database, number) for number in (2999, 2997, 2995)]
    for state in states:
        asyncio.run(reads.recent_position(state))
    assert len(asked) == 1
    time += 1
    asyncio.run(reads.recent_position(states[0]))
    assert len(asked) == 2


def test_owners_see_their_own(database: sa.Engine) -> None:
    reads = StatusReads(open_rows(database))
    assert asyncio.run(reads.state("r1", owner="o")) is not None
    assert asyncio.run(reads.state("r1", owner="another")) is None
    assert asyncio.run(reads.state("r\0", owner="o")) is None


def test_many_jobs_are_watched_in_one_query(database: sa.Engine) -> None:
    found = asyncio.run(StatusReads(open_rows(database)).watched({"r1": 0, "r2": 60, "r60": 0, "nobody": 0}))
    assert set(found) == {"r1", "r2", "r60"}
    assert [[line.id for line in found[name][1]] for name in ("r1", "r2", "r60")] == [[2, 52], [], []]
    assert found["r1"][1][0].message == "m1"


@pytest.mark.parametrize("name", ["_COUNT", "_QUEUE", "_LOGS"])
def test_the_hot_queries_scan_no_table(database: sa.Engine, name: str) -> None:
    sql = getattr(status_reads, name)
    connection = sqlite3.connect(str(database.url.database))
    values = {"priority": 0, "queue_order": 1, "most": 5, "id": "r1"}
    plan = [row[3] for row in connection.execute(f"EXPLAIN QUERY PLAN {sql}", values)]
    connection.close()
    assert all("USING" in step and "INDEX" in step for step in plan if "request" in step), plan
    assert not any("TEMP B-TREE" in step for step in plan), plan


def test_the_connection_cannot_write(database: sa.Engine) -> None:
    rows = SqliteRows(str(database.url.database))
    with pytest.raises(sqlite3.OperationalError):
        asyncio.run(rows("DELETE FROM request", {}))
