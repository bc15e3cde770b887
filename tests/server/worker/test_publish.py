"""A video is worth having without its thumbnail."""

import errno
from collections.abc import Callable
from pathlib import Path

import pytest
import sqlalchemy as sa
from dbos import DBOSClient

from server.errors import StorageAway
from server.jobs.job import Rendered
from server.jobs.job_store import JobStore
from server.storage.local import LocalStorage
from server.storage.scratch import scratch_thumbnail
from server.worker.publish import PublishWorkflow
from tests.harness.in_process import settings_for
from tests.harness.new_job import new_job


def _away(_: str) -> None:
    raise StorageAway("no answer")


def _full(_: str) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def _there(_: str) -> None:
    pass


@pytest.mark.parametrize(("made", "put", "kept"), [
    (True, _there, True),
    (False, _there, False),
    (True, _away, False),
    (True, _full, False),
])  # fmt: skip
def test_the_job_ends_well_whatever_becomes_of_its_thumbnail(
    database: sa.Engine,
    engine: DBOSClient,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    made: bool,
    put: Callable[[str], None],
    kept: bool,
) -> None:
    store, storage, job = JobStore(database, engine), LocalStorage(tmp_path), new_job()
    store.add(job)
    attempt = store.claim(job.id, "w")
    assert attempt is not None
    path = storage.scratch.rendering(f"{job.id}-1.mp4")
    path.write_bytes(b"video")
    if made:
        scratch_thumbnail(path).write_bytes(b"picture")
    key = storage.new_key("files", f"{job.id}.mp4")
    assert store.rendered(attempt, Rendered(key, str(path), "w", 1.0))
    real = storage.put

    def puts(source: Path, to: str) -> int:
        if to.endswith(".webp"):
            put(to)
        return real(source, to)

    monkeypatch.setattr(storage, "put", puts)
    PublishWorkflow(store, storage, settings_for(tmp_path)).run(job.id, key, str(path), 1.0)
    ended = store.get(job.id)
    assert ended is not None
    assert (ended.response_status, ended.video_bytes) == (200, 5)
    assert (ended.thumbnail_key is not None) == kept
    assert len(list(storage.stored("files", older_than_s=-60))) == 1 + kept
    assert [found for found in (tmp_path / "tmp").iterdir() if found.is_file()] == []
