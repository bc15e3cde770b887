"""On Postgres: the same promises, with several workers, and with the database away for a while."""

import asyncio
import concurrent.futures
import logging
import time
import uuid
from collections.abc import Callable
from pathlib import Path

import httpx
import psutil
import pytest
import sqlalchemy as sa

from server.bench.throwaway_postgres import Postgres
from server.db.async_rows import PostgresRows
from server.db.connection import create_engine
from server.db.migrations import migrate
from server.db.outage import is_outage
from server.fal.schemas import HunyuanCustomInput
from server.fal.submit_headers import Priority
from server.jobs.dbos_queues import dbos_client
from server.jobs.job import NewJob
from server.jobs.job_store import JobStore
from server.jobs.status_reads import JobState, StatusReads
from tests.harness.live_server import APP, Server, example, until
from tests.harness.queue_positions import QueuePositions

logger = logging.getLogger(__name__)  # `pytest --log-cli-level=INFO` shows what was measured

STALE_S = 1.5
OUTAGE_S = 10.0


@pytest.fixture
def url(postgres: Postgres, tmp_path: Path) -> str:
    """A database with its tables."""
    made = postgres.new_database()
    migrate(made, tmp_path / "lock")
    return made


def new_job(owner: str = "local") -> NewJob:
    body = HunyuanCustomInput(prompt="p", image_url="data:")
    return NewJob(str(uuid.uuid4()), owner, body, 1, Priority.NORMAL, "http://127.0.0.1")


def test_a_transaction_in_which_nothing_happens_is_ended(url: str) -> None:
    """A machine that froze in one would keep others from taking over its job."""
    database = create_engine(url)

    def is_served(pid: int) -> bool:
        with database.connect() as another:
            return bool(another.execute(sa.text("SELECT 1 FROM pg_stat_activity WHERE pid = :pid"), {"pid": pid}).all())

    with database.connect() as connection:
        limit = connection.execute(sa.text("SHOW idle_in_transaction_session_timeout"))
        assert limit.scalar_one() == "10s"
        own = connection.execute(sa.text("SELECT pg_backend_pid()")).scalar_one()
        connection.execute(sa.text("SET idle_in_transaction_session_timeout = '100ms'"))
        until(lambda: not is_served(own))
        with pytest.raises(sa.exc.DBAPIError) as ended:
            connection.execute(sa.text("SELECT 1"))
    assert is_outage(ended.value), "whoever wakes up tries again"
    database.dispose()


def test_submits_at_once_are_queued_one_behind_the_other(url: str) -> None:
    database = create_engine(url)
    dbos = dbos_client(database)
    store = JobStore(database, dbos)
    jobs = [new_job(owner=f"owner{number % 3}") for number in range(24)]
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        list(pool.map(store.add, jobs))
    positions = QueuePositions(database)
    assert sorted(positions.position(job.id, job.owner) for job in jobs) == list(range(24))
    positions.close()
    dbos.destroy()
    database.dispose()


def test_hot_reads_say_what_the_store_says(url: str) -> None:
    database = create_engine(url)
    dbos = dbos_client(database)
    store = JobStore(database, dbos)
    jobs = [new_job() for _ in range(5)]
    for job in jobs:
        store.add(job)
    running = store.claim(jobs[0].id, "w")
    assert running
    store.log(running, [("INFO", "one"), ("INFO", "two")])
    first_line = store.logs(running.id)[0].id

    async def read() -> None:
        rows = PostgresRows(database.url)
        reads = StatusReads(rows)

        async def state(number: int) -> JobState:
            found = await reads.state(jobs[number].id, owner="local")
            assert found
            return found

        assert [await reads.position(await state(number)) for number in (1, 4)] == [0, 3]
        assert await reads.recent_position(await state(4)) == 3
        assert await reads.logs(running.id) == store.logs(running.id)
        assert await reads.state(running.id, owner="another") is None
        assert await reads.state("\0", owner="local") is None
        assert not await reads.video_is_known("files/x")
        watched = await reads.watched({running.id: first_line, jobs[4].id: 0, "nobody": 0})
        assert {name: [line.message for line in lines] for name, (_, lines) in watched.items()} == {
            running.id: ["two"],
            jobs[4].id: [],
        }
        at_once = await asyncio.gather(*(reads.state(job.id, owner="local") for job in jobs * 8))
        assert all(at_once)
        with database.begin() as transaction:  # what a restart does to idle connections
            others = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()"
            transaction.execute(sa.text(f"{others} AND datname = current_database()"))
        assert await reads.logs(running.id)
        await rows.close()

    asyncio.run(read())
    dbos.destroy()
    database.dispose()


def test_a_database_that_is_away_for_a_while_costs_no_job(
    postgres: Postgres, url: str, start_server: Callable[..., Server]
) -> None:
    """Away while a job renders, ends, and is to be published; back after ten seconds."""
    server = start_server(database_url=url, jobs__heartbeat_stale_s=STALE_S)
    running, waiting = server.submit(example(prompt="WAITS")), server.submit(example(seed=5))
    server.until_running(running)
    worker = server.worker()
    generator = psutil.Process(worker["generator_pid"])
    postgres.stop()
    stopped = time.monotonic()
    try:
        (server.data_dir / "go").touch()  # the render goes on, and ends, without a database
        refused = 0
        while time.monotonic() - stopped < OUTAGE_S:
            answer = _any_answer(server, lambda: server.http.post(f"/queue/{APP}", json=example()))
            assert answer.status_code == 503
            assert int(answer.headers["retry-after"]) >= 1
            assert answer.headers["x-fal-request-id"]
            assert answer.json()["error_type"] == "internal_error"
            refused += 1
            time.sleep(0.2)
        assert server.http.get(f"/queue/{APP}/requests/{running}/status").status_code == 503
        assert server.result(running).status_code == 503
        assert server.http.get("/health/live").status_code == 200
    finally:
        postgres.start()
    back = time.monotonic()
    until(lambda: server.http.get(f"/queue/{APP}/requests/{running}/status").is_success)
    logger.info("api_recovery_s: %.2f", time.monotonic() - back)
    results = [server.finish(request) for request in (running, waiting)]
    logger.info("job_recovery_s: %.2f", time.monotonic() - back)
    assert [result.status_code for result in results] == [200, 200]
    assert all(server.http.get(result.json()["video"]["url"]).is_success for result in results)
    assert not any("Attempt" in message for message in server.messages(running))
    assert server.messages(running)[-1].startswith("Denoising step 10/10"), "lines of that time are not lost"
    assert (server.data_dir / "renders").read_text().split() == [running]
    assert server.worker()["pid"] == worker["pid"]
    assert generator.is_running()
    assert refused > 5
    with create_engine(url).connect() as connection:
        known = connection.execute(sa.text("SELECT count(*) FROM request")).scalar_one()
    assert known == 2, "what was refused does not run either"
    connection.engine.dispose()


def _any_answer(server: Server, call: Callable[[], httpx.Response]) -> httpx.Response:
    assert server.process.poll() is None
    return call()
