"""A video is worth having without its thumbnail, and two publishers of one video do each other no harm."""

import errno
from collections.abc import Callable
from pathlib import Path

import pytest
import sqlalchemy as sa
from dbos import DBOSClient

from server.errors import INTERNAL_ERROR, StorageAway
from server.jobs.job import Job, Rendered
from server.jobs.job_store import JobStore
from server.jobs.records import delete_records
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


class Publication:
    """A rendered job whose publisher is frozen when it is about to store the image that the video was made from."""

    def __init__(self, database: sa.Engine, engine: DBOSClient, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.store, self.storage = JobStore(database, engine), LocalStorage(folder)
        self._workflow = PublishWorkflow(self.store, self.storage, settings_for(folder))
        self._monkeypatch = monkeypatch
        self.job = new_job()
        self.image_key = self.storage.new_key("inputs", f"{self.job.id}.png")
        self.storage.put_bytes(b"as it was checked", self.image_key)
        self.store.add(self.job)
        self.store.prepared(self.now(), self.image_key)
        attempt = self.store.claim(self.job.id, "w")
        assert attempt is not None
        self._path = self.storage.scratch.rendering(f"{self.job.id}-1.mp4")
        self._path.write_bytes(b"video")
        self.storage.scratch.cut_out(self.job.id).write_bytes(b"cut out")
        self.video_key = self.storage.new_key("files", f"{self.job.id}.mp4")
        assert self.store.rendered(attempt, Rendered(self.video_key, str(self._path), "w", 1.0))

    def now(self) -> Job:
        job = self.store.get(self.job.id)
        assert job is not None
        return job

    def run(self, *, meanwhile: Callable[[], None]) -> None:
        put = self.storage.put

        def frozen_once(source: Path, key: str) -> int:
            self._monkeypatch.setattr(self.storage, "put", put)
            meanwhile()
            return put(source, key)

        self._monkeypatch.setattr(self.storage, "put", frozen_once)
        self._workflow.run(self.job.id, self.video_key, str(self._path), 1.0)


@pytest.fixture
def publication(
    database: sa.Engine, engine: DBOSClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Publication:
    return Publication(database, engine, tmp_path, monkeypatch)


def test_a_publisher_that_thaws_does_not_fail_the_job_of_the_one_that_took_over(publication: Publication) -> None:
    def begin_the_same() -> None:
        publication.storage.put(publication.storage.scratch.cut_out(publication.job.id), publication.image_key)

    publication.run(meanwhile=begin_the_same)
    assert (publication.now().response_status, publication.now().video_bytes) == (200, 5)
    assert publication.storage.size(publication.video_key) == 5
    assert publication.storage.size(publication.image_key) == len(b"cut out")


def test_a_publisher_that_thaws_does_not_bring_a_deleted_image_back(
    publication: Publication, database: sa.Engine
) -> None:
    def end_and_delete() -> None:
        publication.store.fail(publication.job.id, INTERNAL_ERROR)
        publication.storage.delete(publication.image_key)
        with database.begin() as transaction:
            delete_records(transaction, [publication.job.id])

    publication.run(meanwhile=end_and_delete)
    assert list(publication.storage.stored("inputs", older_than_s=-60)) == []
