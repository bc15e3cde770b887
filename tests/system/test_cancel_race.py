"""Cancel against finish through a real worker: 200 jobs that take no time, cancelled as soon as they run."""

import random
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from server.db.connection import create_engine
from server.db.migrations import migrate
from server.fal.example import PHOTO
from server.jobs.dbos_queues import dbos_client
from server.jobs.job import Status
from server.jobs.job_store import JobStore
from server.storage.local import LocalStorage
from server.storage.scratch import files_below
from tests.harness.cluster import Cluster
from tests.harness.live_server import FAST, until
from tests.harness.new_job import new_job

ROUNDS = 200


@pytest.fixture
def store(tmp_path: Path) -> Iterator[JobStore]:
    """With jobs whose image has been checked already."""
    url = f"sqlite:///{tmp_path / 'hunyuan-custom.sqlite'}"
    migrate(url, tmp_path / "lock")
    database = create_engine(url)
    dbos, storage = dbos_client(database), LocalStorage(tmp_path)
    jobs = JobStore(database, dbos)
    key = storage.new_key("inputs", "photo.png")
    storage.put_bytes(PHOTO.read_bytes(), key)
    for _ in range(ROUNDS):
        new = new_job()
        jobs.add(new)
        added = jobs.get(new.id)
        assert added is not None
        jobs.prepared(added, key)
    yield jobs
    dbos.destroy()
    database.dispose()


def test_cancel_and_finish_race_to_one_end_through_a_real_worker(store: JobStore, tmp_path: Path) -> None:
    ids = [job.id for job in store.open_jobs(older_than_s=0)]
    cluster = Cluster(tmp_path, **{**FAST, "jobs__engine_poll_s": 0.01, "jobs__cancel_poll_s": 0.005})
    moments = random.Random(0)
    try:
        cluster.start_worker("local", renderer="finishes_at_once")
        for request_id in ids:
            until(lambda one=request_id: has_started(store, one))
            cancel_at = time.perf_counter() + moments.uniform(0, 0.05)
            while time.perf_counter() < cancel_at and not store.is_over(request_id):
                pass
            store.cancel(request_id)
        until(lambda: all(map(store.is_over, ids)))
        ended = [job for job in map(store.get, ids) if job is not None and job.status is Status.COMPLETED]
        assert len(ended) == ROUNDS
        assert {job.response_status for job in ended} <= {200, 499}
        # A file for every result, and no other: it is removed after the job's end.
        results = {job.video_key for job in ended if job.response_status == 200}
        until(lambda: videos(tmp_path) == results and not any((tmp_path / "tmp").iterdir()))
    finally:
        cluster.kill()


def videos(data_dir: Path) -> set[str | None]:
    found = files_below(data_dir / "files")  # folders go while it looks
    return {str(path.relative_to(data_dir)) for path in found if path.suffix == ".mp4"}


def has_started(store: JobStore, request_id: str) -> bool:
    job = store.get(request_id)
    return job is not None and job.status is not Status.IN_QUEUE
