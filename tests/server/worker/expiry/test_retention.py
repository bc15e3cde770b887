"""Things end in time: media first, then the record."""

import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
import sqlalchemy as sa
from dbos import DBOSClient
from pydantic import ValidationError

from server.db.tables import log_table, metadata, progress_table, request_table, webhook_table
from server.errors import INTERNAL_ERROR
from server.jobs.job_store import JobStore
from server.settings import RetentionSettings
from server.storage.local import LocalStorage
from server.worker.expiry import retention as retention_module
from server.worker.expiry.retention import Retention
from tests.harness.clock import Clock
from tests.harness.live_server import APP, Server, until
from tests.harness.new_job import new_job

NOW = 1_000_000.0
DAY = 86400.0
Make = Callable[..., dict[str, str]]


@pytest.fixture
def storage(tmp_path: Path) -> LocalStorage:
    return LocalStorage(tmp_path)


@pytest.fixture
def make(database: sa.Engine, storage: LocalStorage) -> Make:
    """Writes a request that finished when the clock stood at its start."""

    def finished(request_id: str, **columns: object) -> dict[str, str]:
        keys = {"source_key": "inputs", "image_key": "inputs", "video_key": "files", "thumbnail_key": "files"}
        keys = {column: storage.new_key(area, "x") for column, area in keys.items()}
        for key in keys.values():
            storage.put_bytes(b"x", key)
        row = {"owner": "o", "status": "COMPLETED", "priority": 0, "input_json": "{}", "seed": "1", "base_url": ""}
        row |= {"id": request_id, "created_at": NOW, "finished_at": NOW, **keys, **columns}
        with database.begin() as transaction:
            transaction.execute(request_table.insert().values(**row))
        return keys

    return finished


def _left(storage: LocalStorage, keys: dict[str, str]) -> set[str]:
    return {column for column, key in keys.items() if storage.find(key)}


def _records(database: sa.Engine) -> set[str]:
    with database.connect() as connection:
        return set(connection.execute(sa.select(request_table.c.id)).scalars())


def _request_ids(database: sa.Engine, table: sa.Table) -> set[str]:
    with database.connect() as connection:
        return set(connection.execute(sa.select(table.c.request_id)).scalars())


def tables_of_the_engine(database: sa.Engine) -> dict[str, int]:
    """Rows of every table that is not ours, if it has any of requests."""
    ours = {*metadata.tables, "schema_version", "dbos_migrations", "queues", "application_versions"}
    with database.connect() as connection:
        counts = {
            name: connection.execute(sa.select(sa.func.count()).select_from(sa.table(name))).scalar_one()
            for name in sa.inspect(connection).get_table_names()
            if name not in ours
        }
    return {name: count for name, count in counts.items() if count}


def test_media_end_before_the_record(
    database: sa.Engine, storage: LocalStorage, engine: DBOSClient, make: Make
) -> None:
    clock = Clock(NOW)
    retention = Retention(database, storage, engine, RetentionSettings(media_s=DAY, records_s=3 * DAY), clock)
    keys, short = make("plain"), make("short", media_ttl_s=60.0)
    long = make("long", media_ttl_s=10 * DAY)
    running = make("running", status="IN_PROGRESS", finished_at=None)

    clock.now = NOW + 59
    assert retention.sweep() == 0
    clock.now = NOW + 61
    assert retention.sweep() == 1
    assert (len(_left(storage, keys)), len(_left(storage, short))) == (4, 0)
    clock.now = NOW + DAY + 1
    assert retention.sweep() == 2
    assert (len(_left(storage, keys)), len(_left(storage, long))) == (0, 0), "a header shortens, it never lengthens"
    assert _records(database) == {"plain", "short", "long", "running"}
    clock.now = NOW + 3 * DAY + 1
    assert retention.sweep() == 3
    assert _records(database) == {"running"}
    assert len(_left(storage, running)) == 4
    assert retention.sweep() == 0


def test_a_record_takes_its_media_along(
    database: sa.Engine, storage: LocalStorage, engine: DBOSClient, make: Make
) -> None:
    clock = Clock(NOW)
    keys = make("a")
    clock.now = NOW + 2 * DAY
    Retention(database, storage, engine, RetentionSettings(media_s=0, records_s=DAY), clock).sweep()
    assert (_left(storage, keys), _records(database)) == (set(), set())


def test_zero_keeps_for_ever(database: sa.Engine, storage: LocalStorage, engine: DBOSClient, make: Make) -> None:
    clock = Clock(NOW)
    keys, asked = make("a"), make("b", media_ttl_s=60.0)
    clock.now = NOW + 10_000 * DAY
    Retention(database, storage, engine, RetentionSettings(media_s=0, records_s=0), clock).sweep()
    assert (len(_left(storage, keys)), len(_left(storage, asked))) == (4, 0)
    assert _records(database) == {"a", "b"}


def test_a_private_image_does_not_outlive_its_job(
    database: sa.Engine, storage: LocalStorage, engine: DBOSClient, make: Make
) -> None:
    keys = make("a", store_io=False)
    assert Retention(database, storage, engine, RetentionSettings(), Clock(NOW)).sweep() == 1
    assert _left(storage, keys) == {"video_key", "thumbnail_key"}


def test_a_file_that_cannot_be_removed_keeps_no_other(
    database: sa.Engine, storage: LocalStorage, engine: DBOSClient, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock(NOW)
    first, second = make("a"), make("b")
    real = storage.delete

    def delete(key: str) -> None:
        if key == first["video_key"]:
            raise PermissionError(key)
        real(key)

    monkeypatch.setattr(storage, "delete", delete)
    clock.now = NOW + 8 * DAY
    Retention(database, storage, engine, RetentionSettings(), clock).sweep()
    assert (_left(storage, first), _left(storage, second)) == ({"video_key"}, set())
    monkeypatch.undo()
    Retention(database, storage, engine, RetentionSettings(), clock).sweep()
    assert _left(storage, first) == set(), "it is tried again"


def test_a_record_waits_for_its_last_file(
    database: sa.Engine, storage: LocalStorage, engine: DBOSClient, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else nobody would know of the file any more."""
    clock = Clock(NOW)
    keys = make("a")
    make("b")
    path = storage.find(keys["video_key"])
    assert path is not None
    real = Path.unlink

    def unlink(self: Path, missing_ok: bool = False) -> None:
        if self == path:
            raise PermissionError(self)
        real(self, missing_ok=missing_ok)

    monkeypatch.setattr(Path, "unlink", unlink)
    clock.now = NOW + 40 * DAY
    retention = Retention(database, storage, engine, RetentionSettings(), clock)
    retention.sweep()
    assert (_records(database), path.exists()) == ({"a"}, True)
    monkeypatch.undo()
    retention.sweep()
    assert (_records(database), path.exists()) == (set(), False)


def test_more_than_one_batch_ends_in_one_sweep(
    database: sa.Engine, storage: LocalStorage, engine: DBOSClient, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retention_module, "_BATCH", 2)
    for number in range(5):
        make(str(number))
    clock = Clock(NOW)
    clock.now = NOW + 40 * DAY
    assert Retention(database, storage, engine, RetentionSettings(), clock).sweep() == 10
    assert _records(database) == set()


def test_a_record_takes_its_log_its_webhook_and_the_engines_rows_along(
    database: sa.Engine, storage: LocalStorage, engine: DBOSClient
) -> None:
    clock = Clock(NOW)
    store = JobStore(database, engine, clock)
    done, early, waiting = (new_job(webhook_url="http://127.0.0.1/") for _ in range(3))
    for job in (done, early, waiting):
        store.add(job)
        added = store.get(job.id)
        assert added is not None
        store.log(added, [("INFO", "a line")])
    store.fail(done.id, INTERNAL_ERROR)
    settings = RetentionSettings(scratch_s=DAY, records_s=3 * DAY)
    retention = Retention(database, storage, engine, settings, clock)

    def known() -> set[str]:
        found = engine.list_workflows(load_input=False, load_output=False)
        return {workflow.workflow_id.partition(":")[0] for workflow in found}

    retention.sweep()
    assert known() == {done.id, early.id, waiting.id}, "a repeated hand-over must find the first"
    clock.now += DAY + 1
    store.fail(early.id, INTERNAL_ERROR)
    retention.sweep()
    assert known() == {early.id, waiting.id}
    clock.now += 2 * DAY
    retention.sweep()
    assert known() == {waiting.id}
    assert _request_ids(database, log_table) == _request_ids(database, webhook_table) | {waiting.id}
    assert _request_ids(database, webhook_table) == {early.id}
    clock.now += 3 * DAY
    retention.sweep()
    assert (_records(database), known()) == ({waiting.id}, {waiting.id})
    assert _request_ids(database, log_table) == {waiting.id}
    assert _request_ids(database, webhook_table) == set()
    assert tables_of_the_engine(database) == {"workflow_status": 1, "workflow_input": 1}


def test_progress_of_a_job_that_another_version_has_ended_is_forgotten(
    database: sa.Engine, storage: LocalStorage, engine: DBOSClient, make: Make
) -> None:
    make("ended")
    make("running", status="IN_PROGRESS", finished_at=None)
    rows = [{"request_id": of, "stage": "decode", "done": 1, "total": 2, "at": 1.0} for of in ("ended", "running")]
    with database.begin() as transaction:
        transaction.execute(sa.insert(progress_table), rows)
    Retention(database, storage, engine, RetentionSettings(), Clock(NOW)).sweep()
    assert _request_ids(database, progress_table) == {"running"}


def test_expired_media_are_410_and_expired_records_404(start_server: Callable[..., Server]) -> None:
    server = start_server(retention__sweep_s=0.1, retention__media_s=DAY, retention__records_s=3 * DAY)
    request_id = server.submit()
    url = server.finish(request_id).json()["video"]["url"]

    def pass_two_days() -> None:
        path = server.data_dir / "hunyuan-custom.sqlite"
        with closing(sqlite3.connect(path, timeout=30)) as database, database:
            database.execute("UPDATE request SET finished_at = finished_at - ?", (2 * DAY,))

    assert server.http.get(url).status_code == 200
    pass_two_days()
    until(lambda: server.http.get(url).status_code == 410)
    gone = server.http.get(url)
    assert gone.json() == {"detail": "File expired", "error_type": "expired"}
    assert server.result(request_id).status_code == 200
    pass_two_days()
    until(lambda: server.result(request_id).status_code == 404)
    assert server.http.get(url).status_code == 404
    for suffix in ("", "/status", "/status/stream", "/response"):
        answer = server.http.get(f"/queue/{APP}/requests/{request_id}{suffix}")
        assert (answer.status_code, answer.json()["status"]) == (404, "NOT_FOUND")


def test_scratch_files_are_kept_for_an_hour_at_least() -> None:
    """A shorter time is one in which an upload or a download may still be under way."""
    with pytest.raises(ValidationError, match="scratch_s"):
        RetentionSettings(scratch_s=6)
