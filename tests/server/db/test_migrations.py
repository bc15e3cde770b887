"""Upgrades: from every earlier form of the tables to the one that a fresh database has, with jobs in the queue."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from server.bench.deployment import Deployment
from server.db import migrations
from server.db.connection import create_engine
from server.db.migrations import migrate
from server.db.tables import measurement_table
from server.errors import SettingsError
from tests.harness.live_server import ROOT, Server, example

VERSION_1 = Path(__file__).with_name("schema_1.sql")
ROUNDS = 4

MIGRATE_EACH = """
import sys
from pathlib import Path
from server.db.migrations import migrate
for line in sys.stdin:
    url, lock = line.split()
    migrate(url, Path(lock))
    print("done", flush=True)
"""

Make = Callable[[], str]


@pytest.fixture(params=["sqlite", "postgres"])
def new_database(request: pytest.FixtureRequest, tmp_path: Path) -> Make:
    """URLs of databases without tables."""
    if request.param == "postgres":
        return request.getfixturevalue("postgres").new_database
    numbers = iter(range(100))
    return lambda: f"sqlite:///{tmp_path / f'{next(numbers)}.sqlite'}"


@pytest.fixture
def opened() -> Iterator[Callable[[str], sa.Engine]]:
    """Opens databases that are closed at the end."""
    engines: list[sa.Engine] = []

    def open_one(url: str) -> sa.Engine:
        engines.append(create_engine(url))
        return engines[-1]

    yield open_one
    for engine in engines:
        engine.dispose()


def make_version_1(database: sa.Engine) -> None:
    """The tables of then, with one request that waits, and the webhook of one that is gone."""
    script = VERSION_1.read_text()
    if database.dialect.name != "sqlite":
        script = script.replace("INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT", "SERIAL PRIMARY KEY")
    waiting = {
        "id": "w",
        "owner": "o",
        "status": "IN_QUEUE",
        "priority": 0,
        "place": 1,
        "input_json": "{}",
        "seed": "1",
    }
    waiting |= {"base_url": "", "attempt": 0, "faults": 0, "created_at": 1.0}
    waiting |= dict.fromkeys(("cancel_requested", "no_retry", "store_io", "media_deleted"), False)
    lost = {"request_id": "gone", "url": "", "state": "failed", "attempts": 1, "next_at": 1.0, "leased_until": 0.0}
    with database.begin() as transaction:
        for statement in script.split(";\n"):
            if statement.strip():
                transaction.exec_driver_sql(statement)
        for table, row in (("request", waiting), ("webhook", {**lost, "outcome": ""})):
            columns: list[sa.ColumnClause[Any]] = [sa.column(name) for name in row]
            transaction.execute(sa.table(table, *columns).insert().values(**row))


def form(database: sa.Engine) -> dict[str, Any]:
    """Columns and indexes of all tables, with the rows that an index is of."""
    found = sa.inspect(database)
    return {
        name: (
            {column["name"]: (str(column["type"]), column["nullable"]) for column in found.get_columns(name)},
            {
                index["name"]: (index["column_names"], bool(index["unique"]), _condition(index))
                for index in found.get_indexes(name)
            },
        )
        for name in found.get_table_names()
    }


def _condition(index: Any) -> list[str]:
    return [str(text) for option, text in index.get("dialect_options", {}).items() if option.endswith("_where")]


def scalar(database: sa.Engine, query: str) -> Any:
    with database.connect() as connection:
        return connection.execute(sa.text(query)).scalar_one()


@pytest.mark.parametrize("version", range(1, migrations.CURRENT))
def test_an_upgraded_database_is_like_a_fresh_one_and_keeps_its_rows(
    new_database: Make,
    opened: Callable[[str], sa.Engine],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    version: int,
) -> None:
    old, fresh = new_database(), new_database()
    make_version_1(opened(old))
    with monkeypatch.context() as then:
        then.setattr(migrations, "_STEPS", migrations._STEPS[: version - 1])
        then.setattr(migrations, "CURRENT", version)
        migrate(old, tmp_path / "lock")
    migrate(fresh, tmp_path / "lock")
    assert form(opened(old)) != form(opened(fresh))
    for url in (old, fresh, old):
        migrate(url, tmp_path / "lock")
    assert form(opened(old)) == form(opened(fresh))
    assert scalar(opened(old), "SELECT version FROM schema_version") == migrations.CURRENT
    assert scalar(opened(old), "SELECT id FROM request WHERE NOT engine_forgotten") == "w"
    assert scalar(opened(old), "SELECT count(*) FROM webhook") == 0


def test_an_upgrade_that_fails_changes_nothing(
    new_database: Make, opened: Callable[[str], sa.Engine], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = new_database()
    database = opened(url)
    make_version_1(database)
    before = form(database)
    with monkeypatch.context() as patched:
        patched.setattr(migrations, "_STEPS", (*migrations._STEPS, ("SELECT nonsense",)))
        with pytest.raises(sa.exc.DBAPIError, match="nonsense"):
            migrate(url, tmp_path / "lock")
    assert form(opened(url)) == before
    migrate(url, tmp_path / "lock")
    assert scalar(database, "SELECT version FROM schema_version") == migrations.CURRENT


def test_five_that_start_at_once_migrate_one_after_the_other(
    new_database: Make, opened: Callable[[str], sa.Engine], tmp_path: Path
) -> None:
    """With Postgres they may be on machines of their own: no lock file in common."""
    command = [sys.executable, "-c", MIGRATE_EACH]
    started = [
        subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(5)
    ]
    try:
        for number in range(ROUNDS):
            url = new_database()
            if number % 2:
                make_version_1(opened(url))
            for index, process in enumerate(started):
                assert process.stdin is not None
                lock = tmp_path / (f"lock-{index}" if url.startswith("postgresql") else "lock")
                process.stdin.write(f"{url} {lock}\n")
                process.stdin.flush()
            assert [process.stdout and process.stdout.readline() for process in started] == ["done\n"] * 5
            assert scalar(opened(url), "SELECT count(*) FROM schema_version") == 1
    finally:
        for process in started:
            process.communicate()
    assert [process.returncode for process in started] == [0] * 5


def test_queued_jobs_of_an_older_version_run_after_the_upgrade(
    start_server: Callable[..., Server], opened: Callable[[str], sa.Engine]
) -> None:
    old = start_server()
    running, waiting = old.submit(example(prompt="WORKS_SLOWLY")), old.submit()
    old.until_running(running)
    old.stop()
    database = opened(f"sqlite:///{old.data_dir / 'hunyuan-custom.sqlite'}")
    with database.begin() as transaction:
        transaction.execute(sa.text("DROP TABLE schema_version"))
        transaction.execute(sa.text("ALTER TABLE upload DROP COLUMN sha256"))
        for index in ("request_waiting_of_owner", "request_rendering", "request_deadline", "request_of_owner"):
            transaction.execute(sa.text(f"DROP INDEX {index}"))
        for column in ("engine_forgotten", "thumbnail_key", "traceparent"):
            transaction.execute(sa.text(f"ALTER TABLE request DROP COLUMN {column}"))
    new = start_server()
    new.until_running(running)
    assert scalar(database, "SELECT version FROM schema_version") == migrations.CURRENT
    new.cancel(running)
    assert new.finish(waiting).status_code == 200


@pytest.mark.parametrize("command", ["serve", "worker"])
def test_an_older_server_leaves_a_newer_database_alone(
    tmp_path: Path, opened: Callable[[str], sa.Engine], command: str
) -> None:
    url = f"sqlite:///{tmp_path / 'hunyuan-custom.sqlite'}"
    migrate(url, tmp_path / "lock")
    with opened(url).begin() as transaction:
        transaction.execute(sa.text("UPDATE schema_version SET version = 99"))
    done = Deployment(tmp_path, {"api__port": 0}).command(command)
    assert (done.returncode, done.stdout) == (2, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: database_url: the database has version 99")


def test_a_process_of_a_cluster_does_not_migrate_by_itself(
    new_database: Make, opened: Callable[[str], sa.Engine], tmp_path: Path
) -> None:
    """It says what to do, on no tables and on older ones."""
    url = new_database()
    with pytest.raises(SettingsError, match="hunyuan-custom migrate"):
        migrations.check(opened(url))
    make_version_1(opened(url))
    with pytest.raises(SettingsError, match="hunyuan-custom migrate"):
        migrations.check(opened(url))
    migrate(url, tmp_path / "lock")
    migrations.check(opened(url))
    with opened(url).begin() as transaction:
        measurement_table.drop(transaction)  # a new table, which changes no version
    with pytest.raises(SettingsError, match="hunyuan-custom migrate"):
        migrations.check(opened(url))
