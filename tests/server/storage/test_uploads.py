"""What an owner's uploads may take, on both databases, and how long they stay."""

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import sqlalchemy as sa

from server.db.connection import create_engine
from server.db.locks import lock_queue
from server.db.migrations import migrate
from server.db.tables import upload_table
from server.errors import BodyTooLarge, StorageAway
from server.settings import LimitSettings
from server.storage.local import LocalStorage
from server.storage.uploads import Uploads

PNG = b"\x89PNG\r\n\x1a\n" + b"\0" * 92  # enough of one to be kept


@pytest.fixture(params=["sqlite", "postgres"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[sa.Engine]:
    url = f"sqlite:///{tmp_path / 'x.sqlite'}"
    if request.param == "postgres":
        url = request.getfixturevalue("postgres").new_database()
    migrate(url, tmp_path / "lock")
    opened = create_engine(url)
    yield opened
    opened.dispose()


class Owners:
    """Keeps files of one size for whom a test names; `now` is the time."""

    def __init__(self, database: sa.Engine, folder: Path, *, files_each: int) -> None:
        limits = LimitSettings(upload_bytes_per_owner=files_each * len(PNG), upload_ttl_s=100)
        self.now = time.time()
        self.storage = LocalStorage(folder)
        self.uploads = Uploads(database, self.storage, limits, clock=lambda: self.now)

    def keep(self, owner: str, ttl_s: float | None = None) -> str:
        key = self.uploads.new_key("x.png", "image/png")
        with self.storage.scratch.file("part") as part:
            part.write_bytes(PNG)
            self.uploads.keep(owner, key, part, ttl_s=ttl_s)
        return key

    def may_keep(self, owner: str) -> bool:
        try:
            self.keep(owner)
        except BodyTooLarge:
            return False
        return True


def test_uploads_expire_and_count_against_their_owner(database: sa.Engine, tmp_path: Path) -> None:
    owners = Owners(database, tmp_path, files_each=3)
    short, long = owners.keep("a", 10), owners.keep("a", 10_000)
    assert owners.may_keep("a")
    assert not owners.may_keep("a")
    assert owners.may_keep("b")
    owners.now += 11
    assert owners.uploads.sweep() == 1
    assert owners.storage.find(short) is None
    assert owners.may_keep("a")
    owners.now += 101
    assert owners.uploads.sweep() == 4
    assert owners.storage.find(long) is None, "nothing is kept longer than the setting says"
    with database.connect() as connection:
        assert connection.execute(sa.select(sa.func.count()).select_from(upload_table)).scalar_one() == 0


def test_uploads_at_once_stay_within_the_quota(database: sa.Engine, tmp_path: Path) -> None:
    owners = Owners(database, tmp_path, files_each=3)
    with ThreadPoolExecutor(8) as pool:
        kept = list(pool.map(owners.may_keep, ["a"] * 8 + ["b"] * 3))
    assert (sum(kept[:8]), sum(kept[8:])) == (3, 3)


@pytest.mark.parametrize("database", ["postgres"], indirect=True)
def test_an_upload_does_not_wait_for_submits(database: sa.Engine, tmp_path: Path) -> None:
    owners = Owners(database, tmp_path, files_each=3)
    with ThreadPoolExecutor(1) as pool, database.begin() as submit:
        lock_queue(submit)
        assert pool.submit(owners.may_keep, "a").result(timeout=20)


def test_an_upload_that_was_not_stored_does_not_count(
    database: sa.Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    owners = Owners(database, tmp_path, files_each=1)

    def away(_source: Path, _key: str) -> int:
        raise StorageAway

    with monkeypatch.context() as patch:
        patch.setattr(owners.storage, "put", away)
        for _ in range(2):
            with pytest.raises(StorageAway):
                owners.keep("a")
    assert [owners.may_keep("a"), owners.may_keep("a")] == [True, False]
