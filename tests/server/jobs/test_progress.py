"""How far a job is, in both databases: written by the attempt that renders, and gone with it."""

import asyncio
import threading
from collections.abc import Iterator

import pytest
import sqlalchemy as sa
from dbos import DBOSClient

from server.errors import INTERNAL_ERROR
from server.jobs.dbos_queues import dbos_client
from server.jobs.job import Job, Rendered
from server.jobs.job_store import JobStore
from server.jobs.progress import Progress, ProgressReads, ProgressTable
from server.jobs.status_reads import open_rows
from tests.harness.new_job import new_job

ROUNDS = 20
WRITES = 5


@pytest.fixture
def dbos(either_database: sa.Engine) -> Iterator[DBOSClient]:
    client = dbos_client(either_database)
    yield client
    client.destroy()


def read(database: sa.Engine, request_id: str, *, owner: str = "local") -> tuple[Progress | None, bytes | None]:
    async def both() -> tuple[Progress | None, bytes | None]:
        rows = open_rows(database)
        reads = ProgressReads(rows)
        found = await reads.of(request_id, owner=owner)
        picture = await reads.preview(request_id, owner=owner)
        close = getattr(rows, "close", None)
        if close is not None:
            await close()
        return (None if found is None else found[1]), picture

    return asyncio.run(both())


def claimed(store: JobStore, request_id: str) -> Job:
    job = store.claim(request_id, "w")
    assert job is not None
    return job


def test_a_watcher_follows_a_job_from_its_image_to_its_file(either_database: sa.Engine, dbos: DBOSClient) -> None:
    store, table, job = JobStore(either_database, dbos), ProgressTable(either_database), new_job()
    store.add(job)
    assert read(either_database, job.id) == (Progress("prepare"), None)
    added = store.get(job.id)
    assert added is not None
    store.prepared(added, "inputs/key")
    assert read(either_database, job.id) == (Progress(None), None)
    attempt = claimed(store, job.id)
    assert read(either_database, job.id) == (Progress(None), None)
    early, late = Progress("encode", 1, 5), Progress("denoise", 7, 1800, 12.5, 1)
    table.write(attempt, early)
    assert read(either_database, job.id) == (early, None)
    table.write(attempt, late, b"\x00picture")
    assert read(either_database, job.id) == (late, b"\x00picture")
    table.write(attempt, Progress("decode", 1, 8, None, 9))
    assert read(either_database, job.id) == (Progress("decode", 1, 8, None, 1), b"\x00picture"), "the last one stays"
    assert read(either_database, job.id, owner="another") == (None, None)
    store.rendered(attempt, Rendered("files/key.mp4", "/tmp/x.mp4", "w", 1.0))
    assert read(either_database, job.id) == (Progress("publish", preview=1), b"\x00picture")
    assert store.fail(job.id, INTERNAL_ERROR)
    assert read(either_database, job.id) == (Progress(None), None)


def test_the_next_attempt_begins_without_the_progress_of_the_last(either_database: sa.Engine, dbos: DBOSClient) -> None:
    store, table, job = JobStore(either_database, dbos), ProgressTable(either_database), new_job()
    store.add(job)
    lost = claimed(store, job.id)
    table.write(lost, Progress("denoise", 9, 10, preview=1), b"old")
    after = claimed(store, job.id)
    assert read(either_database, job.id) == (Progress(None), None)
    table.write(lost, Progress("denoise", 10, 10, preview=2), b"of a zombie")
    assert read(either_database, job.id) == (Progress(None), None)
    table.write(after, Progress("denoise", 1, 10))
    assert store.release(after)
    assert read(either_database, job.id)[1] is None
    store.cancel(job.id)


def test_no_picture_outlives_its_job(either_database: sa.Engine, dbos: DBOSClient) -> None:
    """Written by one thread while another ends the job."""
    store, table = JobStore(either_database, dbos), ProgressTable(either_database)
    for round_ in range(ROUNDS):
        job = new_job()
        store.add(job)
        attempt, begun = claimed(store, job.id), threading.Event()

        def keep_writing(attempt: Job = attempt, begun: threading.Event = begun) -> None:
            for _ in range(WRITES):
                table.write(attempt, Progress("denoise", 1, 10, preview=1), b"picture")
                begun.set()

        writer = threading.Thread(target=keep_writing)
        writer.start()
        if round_ % 2:
            begun.wait()
        assert store.fail(job.id, INTERNAL_ERROR)
        writer.join()
        with either_database.connect() as connection:
            assert connection.execute(sa.text("SELECT count(*) FROM progress")).scalar_one() == 0
