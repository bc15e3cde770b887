"""What is left of a deleted request: nothing that its owner could see, and its usage record."""

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from dbos import DBOSClient
from pydantic import SecretStr

from server.api.deletion import Deletion
from server.bench.object_store import ObjectStore
from server.db.tables import (
    log_table,
    progress_table,
    request_table,
    upload_table,
    usage_table,
    webhook_table,
)
from server.errors import INTERNAL_ERROR, StillInProgress, StorageAway
from server.jobs.completion import DELIVERED
from server.jobs.dbos_queues import dbos_client
from server.jobs.job import Job, Rendered, thumbnail_of
from server.jobs.job_store import JobStore
from server.settings import LimitSettings, ObjectStorageSettings, RetentionSettings
from server.storage.files import Storage
from server.storage.local import LocalStorage
from server.storage.s3 import ObjectStorage
from server.storage.scratch import Scratch
from server.storage.uploads import Uploads
from server.webhooks.outbox import WebhookOutbox
from server.worker.expiry.retention import Retention
from tests.harness.new_job import new_job
from tests.harness.pictures import png


class Place:
    """A database and a storage, and a request that is over in them."""

    def __init__(self, database: sa.Engine, storage: Storage, bucket: ObjectStore | None) -> None:
        self.database, self.storage, self.bucket = database, storage, bucket
        self.dbos: DBOSClient = dbos_client(database)
        self.store = JobStore(database, self.dbos)
        self.uploads = Uploads(database, storage, LimitSettings())
        self.deletion = Deletion(database, storage, self.uploads, self.dbos)

    def upload(self, owner: str = "local") -> str:
        """Its key."""
        key = self.uploads.new_key("w.png", "image/png")
        with self.storage.scratch.file("upload.part") as part:
            part.write_bytes(png())
            self.uploads.keep(owner, key, part)
        return key

    def finished(self, *, upload: str | None = None, **options: Any) -> Job:
        """With all that a request can have; `webhook_url` adds a webhook."""
        url = "data:" if upload is None else f"http://127.0.0.1/{upload.replace('uploads', 'cdn/files', 1)}"
        job = new_job(asked={"image_url": url}, source_key=self._put("inputs", "source"), **options)
        self.store.add(job)
        self.store.prepared(self.job(job.id), self._put("inputs", "image.png"))
        attempt = self.store.claim(job.id, "w")
        assert attempt is not None
        self.store.log(attempt, [("INFO", "a line")])
        video = self._put("files", f"{job.id}.mp4")
        self.storage.put_bytes(b"thumbnail", thumbnail_of(video))
        assert self.store.rendered(attempt, Rendered(video, "/tmp/x.mp4", "w", 1.0))
        rendered = self.job(job.id)
        assert self.store.complete(rendered, video_bytes=1, inference_time=1.0, thumbnail_key=thumbnail_of(video))
        return self.job(job.id)

    def job(self, request_id: str) -> Job:
        job = self.store.get(request_id)
        assert job is not None
        return job

    def files_of(self, job: Job) -> list[str]:
        keys = (job.source_key, job.image_key, job.video_key, job.thumbnail_key)
        return [key for key in keys if key is not None and self.storage.size(key) is not None]

    def rows_of(self, job: Job) -> dict[str, int]:
        tables = (request_table, log_table, progress_table, webhook_table, usage_table)
        with self.database.connect() as connection:
            return {
                table.name: connection.execute(
                    sa.select(sa.func.count()).where(
                        table.c["id" if table is request_table else "request_id"] == job.id
                    )
                ).scalar_one()
                for table in tables
            }

    def workflows_of(self, job: Job) -> int:
        return len(self.dbos.list_workflows(workflow_id_prefix=f"{job.id}:", load_input=False, load_output=False))

    def _put(self, area: str, name: str) -> str:
        key = self.storage.new_key(area, name)
        self.storage.put_bytes(b"x", key)
        return key


@pytest.fixture
def place(either_database: sa.Engine, tmp_path: Path) -> Iterator[Place]:
    """SQLite with a directory, Postgres with a bucket."""
    if either_database.dialect.name == "sqlite":
        made = Place(either_database, LocalStorage(tmp_path), None)
        yield made
        made.dbos.destroy()
        return
    with ObjectStore() as bucket:
        where = ObjectStorageSettings(endpoint=bucket.url, access_key_id="id", secret_access_key=SecretStr("secret"))
        made = Place(either_database, ObjectStorage("s3://videos/here", where, scratch=Scratch(tmp_path)), bucket)
        yield made
        made.dbos.destroy()


def test_only_the_usage_record_stays(place: Place) -> None:
    job, other = (place.finished(webhook_url="http://127.0.0.1/") for _ in range(2))
    before = place.rows_of(other), place.workflows_of(other)
    assert (len(place.files_of(job)), place.workflows_of(job)) == (4, 3)
    place.deletion.delete(job)
    assert (place.files_of(job), place.workflows_of(job)) == ([], 0)
    assert place.rows_of(job) == dict.fromkeys(place.rows_of(job), 0) | {"usage_record": 1}
    assert (place.rows_of(other), place.workflows_of(other)) == before
    assert len(place.files_of(other)) == 4
    place.deletion.delete(job)  # again, by another tab that has read the row before


def test_a_request_that_is_not_over_stays(place: Place) -> None:
    job = new_job()
    place.store.add(job)
    for _ in range(2):
        with pytest.raises(StillInProgress):
            place.deletion.delete(place.job(job.id))
        place.store.claim(job.id, "w")
    assert place.store.fail(job.id, INTERNAL_ERROR)
    place.deletion.delete(place.job(job.id))
    assert place.store.get(job.id) is None


def test_an_upload_goes_with_the_last_request_that_names_it(place: Place) -> None:
    key, foreign = place.upload(), place.upload("another")
    first, last = place.finished(upload=key), place.finished(upload=key, owner="another")
    guest = place.finished(upload=foreign)
    place.deletion.delete(first)
    assert place.storage.size(key) is not None
    place.deletion.delete(last)
    assert place.storage.size(key) is not None, "it is not that owner's to delete"
    again = place.finished(upload=key)
    place.deletion.delete(again)
    assert place.storage.size(key) is None
    with place.database.connect() as connection:
        assert set(connection.execute(sa.select(upload_table.c.key)).scalars()) == {foreign}
    place.deletion.delete(guest)
    assert place.storage.size(foreign) is not None
    with place.database.begin() as transaction:
        transaction.execute(upload_table.delete())


def test_a_webhook_on_its_way_finds_nothing_to_come_back_to(place: Place) -> None:
    outbox = WebhookOutbox(place.database)
    job = place.finished(webhook_url="http://127.0.0.1/")
    claimed = {one.request_id: one for one in outbox.claim(100, first_lease_s=60, lease_s=60)}
    place.deletion.delete(job)
    outbox.postpone(claimed[job.id], 0.0, "HTTP 500")
    outbox.settle(claimed[job.id], DELIVERED, "HTTP 200")
    assert place.rows_of(job)["webhook"] == 0


def test_an_idempotency_key_is_free_again(place: Place) -> None:
    job = place.finished(idempotency_key="k")
    known = place.store.accepted_before("local", "k")
    assert known is not None
    place.deletion.delete(job)
    assert place.store.accepted_before("local", "k") is None
    second = place.finished(idempotency_key="k")
    assert second.id != job.id
    place.deletion.delete(second)


def test_deletion_and_retention_meet(place: Place) -> None:
    """Both at once, many times: neither stops at what the other has removed."""
    jobs = [place.finished() for _ in range(12)]
    settings = RetentionSettings(media_s=0.001, records_s=0.001)
    retention = Retention(place.database, place.storage, place.dbos, settings, clock=lambda: 4e9)
    failures: list[BaseException] = []

    def delete_all() -> None:
        try:
            for job in jobs:
                place.deletion.delete(job)
        except BaseException as error:
            failures.append(error)

    deleting = threading.Thread(target=delete_all)
    deleting.start()
    retention.sweep()
    deleting.join()
    assert failures == []
    assert [(place.files_of(job), place.rows_of(job)["request"]) for job in jobs] == [([], 0)] * len(jobs)


def test_a_file_that_cannot_be_removed_keeps_the_record(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    job = place.finished()
    if place.bucket is not None:
        place.bucket.failing = True
    else:

        def unlink(_: Path, missing_ok: bool = False) -> None:
            raise PermissionError(missing_ok)

        monkeypatch.setattr(Path, "unlink", unlink)
    with pytest.raises((StorageAway, OSError)):
        place.deletion.delete(job)
    monkeypatch.undo()
    if place.bucket is not None:
        place.bucket.failing = False
    assert place.rows_of(job)["request"] == 1
    place.deletion.delete(job)
    assert (place.files_of(job), place.rows_of(job)["request"]) == ([], 0)
