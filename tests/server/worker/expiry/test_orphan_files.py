"""What killed processes and lost answers leave behind is removed, and nothing that somebody still needs."""

import json
import os
import sqlite3
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import sqlalchemy as sa
from dbos import DBOSClient
from pydantic import SecretStr

from server.api.intake import Intake, Submission
from server.bench.object_store import ObjectStore
from server.errors import INTERNAL_ERROR
from server.fal.submit_headers import SubmitOptions
from server.jobs.job import Accepted, Rendered, thumbnail_of
from server.jobs.job_store import JobStore
from server.settings import ObjectStorageSettings, RetentionSettings
from server.storage.files import Storage
from server.storage.local import LocalStorage
from server.storage.s3 import ObjectStorage
from server.storage.scratch import Scratch
from server.worker.expiry.orphan_files import OrphanFiles
from tests.harness.in_process import settings_for
from tests.harness.live_server import Server, example, until
from tests.harness.new_job import new_job

DAY = 86400.0


Place = tuple[Storage, Callable[[], None]]


@pytest.fixture(params=["directory", "bucket"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    """A store, and what makes all that is in it many years old."""
    if request.param == "directory":
        yield LocalStorage(tmp_path), lambda: age(tmp_path)
        return
    with ObjectStore() as bucket:
        where = ObjectStorageSettings(endpoint=bucket.url, access_key_id="id", secret_access_key=SecretStr("secret"))
        yield ObjectStorage("s3://videos/here", where, scratch=Scratch(tmp_path)), bucket.age


def age(folder: Path) -> None:
    for path in folder.rglob("*"):
        os.utime(path, (0, 0))


def test_files_that_no_request_names_are_removed(database: sa.Engine, engine: DBOSClient, place: Place) -> None:
    storage, age_all = place
    store = JobStore(database, engine)
    keys: dict[str, str] = {}

    def put(what: str, area: str, name: str) -> str:
        keys[what] = storage.new_key(area, name)
        storage.put_bytes(b"x", keys[what])
        return keys[what]

    def submitted(name: str) -> Any:
        job = new_job()
        job = replace(job, source_key=put(f"{name}: source", "inputs", job.id))
        store.add(job)
        added = store.get(job.id)
        assert added is not None
        store.prepared(added, put(f"{name}: image", "inputs", f"{job.id}.png"))
        put(f"{name}: image of a try that was killed", "inputs", f"{job.id}.png")
        claimed = store.claim(job.id, "w")
        assert claimed is not None
        video = Rendered(put(f"{name}: video", "files", f"{job.id}.mp4"), "/tmp/x.mp4", "w", 1.0)
        assert store.rendered(claimed, video)
        keys[f"{name}: thumbnail"] = thumbnail_of(video.video_key)
        storage.put_bytes(b"x", keys[f"{name}: thumbnail"])
        return replace(claimed, video_key=video.video_key)

    submitted("running")
    done = submitted("done")
    thumbnail = keys["done: thumbnail"]
    assert store.complete(done, video_bytes=1, inference_time=1.0, thumbnail_key=thumbnail)
    assert store.complete(submitted("bare"), video_bytes=1, inference_time=1.0)
    assert store.fail(submitted("failed").id, INTERNAL_ERROR)
    put("killed between file and row", "inputs", new_job().id)
    put("an upload", "uploads", "x.png")
    age_all()
    put("young", "inputs", new_job().id)

    orphans = OrphanFiles(database, storage, RetentionSettings(scratch_s=DAY))
    assert orphans.sweep() == 8
    left = {what for what, key in keys.items() if storage.size(key) is not None}
    assert left == {
        "young",
        "running: source",
        "running: image",
        "running: video",
        "running: thumbnail",
        "done: source",
        "done: image",
        "done: video",
        "done: thumbnail",
        "bare: source",
        "bare: image",
        "bare: video",
        "failed: source",
        "failed: image",
        "an upload",
    }


def test_the_storage_is_not_looked_through_all_the_time(database: sa.Engine, tmp_path: Path) -> None:
    storage, now = LocalStorage(tmp_path), [0.0]
    orphans = OrphanFiles(database, storage, RetentionSettings(scratch_s=DAY), lambda: now[0])
    assert orphans.sweep() == 0
    storage.put_bytes(b"x", storage.new_key("inputs", new_job().id))
    age(tmp_path / "inputs")
    assert orphans.sweep() == 0
    now[0] += DAY
    assert orphans.sweep() == 1


def test_a_server_clears_up_after_its_last_life_and_keeps_what_is_open(
    start_server: Callable[..., Server], tmp_path: Path
) -> None:
    first = start_server()
    running, waiting = first.submit(example(prompt="WAITS")), first.submit()
    first.until_running(running)
    until(lambda: len(list((tmp_path / "inputs").rglob("*.png"))) == 2)
    first.stop()
    storage = LocalStorage(tmp_path)
    lost = [tmp_path / storage.new_key(area, "x") for area in ("inputs", "files")]
    lost += [lost[0].with_name("x.part"), tmp_path / "tls" / "key.pem.part"]
    for path in lost:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    for area in ("inputs", "files", "tls"):
        age(tmp_path / area)
    lost.append(tmp_path / "tmp" / "lost-1.mp4.part")
    lost[-1].touch()
    os.utime(lost[-1], (0, 0))
    young = tmp_path / "tmp" / "young.mp4.part"
    young.touch()
    checkpoints = [storage.scratch.checkpoint(request_id) for request_id in (running, new_job().id)]
    for path in checkpoints:
        path.touch()

    second = start_server(retention__sweep_s=0.2)
    until(lambda: not any(path.exists() for path in (*lost, checkpoints[1])))
    assert checkpoints[0].exists(), "its job is open"
    assert young.exists()
    second.cancel(waiting)
    storage.scratch.checkpoint(waiting).touch()  # ended by the API, which may be on another machine
    until(lambda: not storage.scratch.checkpoint(waiting).exists())
    (tmp_path / "go").touch()
    video = urlsplit(second.finish(running).json()["video"]["url"])  # with the port of the first
    assert second.http.get(video.path).is_success
    until(lambda: not checkpoints[0].exists())


def test_a_file_is_synced_with_every_directory_above_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    storage, synced, real = LocalStorage(tmp_path), set[str](), os.fsync

    def fsync(handle: int) -> None:
        synced.add(str(Path(f"/proc/self/fd/{handle}").readlink()))
        real(handle)

    monkeypatch.setattr(os, "fsync", fsync)
    key = storage.new_key("files", "x.mp4")
    storage.put_bytes(b"x", key)
    assert {str(directory) for directory in (tmp_path / key).parents[:4]} <= synced
    assert str(tmp_path) in synced


class _Locked(JobStore):
    """Its database is locked, or says so although it has written the job."""

    written_first = False

    def add(self, job: Any, *, max_queue_length: int | None = None) -> Accepted:
        if self.written_first:
            super().add(job, max_queue_length=max_queue_length)
        reason = sqlite3.OperationalError("database is locked")
        raise sa.exc.OperationalError("INSERT", {}, reason)


@pytest.mark.parametrize("written_first", [False, True])
def test_a_submit_that_fails_takes_its_image_along_unless_it_was_written(
    database: sa.Engine, engine: DBOSClient, tmp_path: Path, written_first: bool
) -> None:
    storage = LocalStorage(tmp_path)
    store = _Locked(database, engine)
    store.written_first = written_first
    intake = Intake(store, storage, settings_for(tmp_path, jobs={"min_free_bytes": 0}))
    body = bytearray(json.dumps(example()).encode())
    with pytest.raises(sa.exc.OperationalError, match="locked"):
        intake.accept(Submission(body, "local", "http://127.0.0.1", SubmitOptions.from_headers({})))
    assert len(list(storage.stored("inputs", older_than_s=-60))) == int(written_first)
