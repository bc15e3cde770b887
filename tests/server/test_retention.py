"""Things end in time: media first, then the record."""

from collections.abc import Callable
from pathlib import Path

import pytest
import sqlalchemy as sa

from server.database import create_engine, migrate, request_table
from server.retention import Retention
from server.settings import RetentionSettings
from server.storage import LocalStorage
from tests.live_server import Server, until

DAY = 86400.0
Make = Callable[..., dict[str, str]]


class Clock:
    now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def database(tmp_path: Path) -> sa.Engine:
    url = f"sqlite:///{tmp_path / 'x.sqlite'}"
    migrate(url, tmp_path / "lock")
    return create_engine(url)


@pytest.fixture
def storage(tmp_path: Path) -> LocalStorage:
    return LocalStorage(tmp_path)


@pytest.fixture
def make(database: sa.Engine, storage: LocalStorage) -> Make:
    """Writes a request that finished when the clock stood at its start."""

    def finished(request_id: str, **columns: object) -> dict[str, str]:
        keys = {"source_key": "inputs", "image_key": "inputs", "video_key": "files"}
        keys = {column: storage.new_key(area, "x") for column, area in keys.items()}
        for key in keys.values():
            storage.put_bytes(b"x", key)
        row = {"owner": "o", "status": "COMPLETED", "priority": 0, "input_json": "{}", "seed": "1", "base_url": ""}
        row |= {"id": request_id, "created_at": Clock.now, "finished_at": Clock.now, **keys, **columns}
        with database.begin() as transaction:
            transaction.execute(request_table.insert().values(**row))
        return keys

    return finished


def _left(storage: LocalStorage, keys: dict[str, str]) -> set[str]:
    return {column for column, key in keys.items() if storage.find(key)}


def _records(database: sa.Engine) -> set[str]:
    with database.connect() as connection:
        return set(connection.execute(sa.select(request_table.c.id)).scalars())


def test_media_end_before_the_record(database: sa.Engine, storage: LocalStorage, make: Make) -> None:
    clock = Clock()
    retention = Retention(database, storage, RetentionSettings(media_s=DAY, records_s=3 * DAY), clock)
    keys, short = make("plain"), make("short", media_ttl_s=60.0)
    long = make("long", media_ttl_s=10 * DAY)
    running = make("running", status="IN_PROGRESS", finished_at=None)

    clock.now = Clock.now + 59
    assert retention.sweep() == 0
    clock.now = Clock.now + 61
    assert retention.sweep() == 1
    assert (len(_left(storage, keys)), len(_left(storage, short))) == (3, 0)
    clock.now = Clock.now + DAY + 1
    assert retention.sweep() == 2
    assert (len(_left(storage, keys)), len(_left(storage, long))) == (0, 0), "a header shortens, it never lengthens"
    assert _records(database) == {"plain", "short", "long", "running"}
    clock.now = Clock.now + 3 * DAY + 1
    assert retention.sweep() == 3
    assert _records(database) == {"running"}
    assert len(_left(storage, running)) == 3
    assert retention.sweep() == 0


def test_a_record_takes_its_media_along(database: sa.Engine, storage: LocalStorage, make: Make) -> None:
    clock = Clock()
    keys = make("a")
    clock.now = Clock.now + 2 * DAY
    Retention(database, storage, RetentionSettings(media_s=0, records_s=DAY), clock).sweep()
    assert (_left(storage, keys), _records(database)) == (set(), set())


def test_zero_keeps_for_ever(database: sa.Engine, storage: LocalStorage, make: Make) -> None:
    clock = Clock()
    keys, asked = make("a"), make("b", media_ttl_s=60.0)
    clock.now = Clock.now + 10_000 * DAY
    Retention(database, storage, RetentionSettings(media_s=0, records_s=0), clock).sweep()
    assert (len(_left(storage, keys)), len(_left(storage, asked))) == (3, 0)
    assert _records(database) == {"a", "b"}


def test_a_private_image_does_not_outlive_its_job(database: sa.Engine, storage: LocalStorage, make: Make) -> None:
    keys = make("a", store_io=False)
    assert Retention(database, storage, RetentionSettings(), Clock()).sweep() == 1
    assert _left(storage, keys) == {"video_key"}


def test_a_file_that_cannot_be_removed_keeps_no_other(
    database: sa.Engine, storage: LocalStorage, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock()
    first, second = make("a"), make("b")
    real = storage.delete

    def delete(key: str) -> None:
        if key == first["video_key"]:
            raise PermissionError(key)
        real(key)

    monkeypatch.setattr(storage, "delete", delete)
    clock.now = Clock.now + 8 * DAY
    Retention(database, storage, RetentionSettings(), clock).sweep()
    assert (_left(storage, first), _left(storage, second)) == ({"video_key"}, set())


def test_expired_media_are_410_and_expired_records_404(start_server: Callable[..., Server]) -> None:
    server = start_server(retention__sweep_s=0.1, retention__media_s=0.5, retention__records_s=3)
    request_id = server.submit()
    url = server.finish(request_id).json()["video"]["url"]
    until(lambda: server.http.get(url).status_code == 410)
    gone = server.http.get(url)
    assert gone.json() == {"detail": "File expired", "error_type": "expired"}
    assert server.result(request_id).status_code == 200
    until(lambda: server.result(request_id).status_code == 404)
    assert server.http.get(url).status_code == 404
    assert server.result(request_id).json()["status"] == "NOT_FOUND"
