"""The version of the tables of a database, and the steps that lead from each version to the next.

Version 1 is what there was before versions. A step is for what `create_all` leaves alone: columns and indexes of
existing tables, and rows; new tables need none. A step removes nothing that the version before still reads: while a
cluster is upgraded, its older processes work on the new tables.
"""

from pathlib import Path
from typing import Final

import sqlalchemy as sa
from dbos import DBOS

from server.db.connection import create_engine
from server.db.locks import migration_lock
from server.db.tables import metadata
from server.errors import SettingsError

_FIRST: Final = 1
# SQL that SQLite and Postgres both take. What has been released is never changed, only followed by another step.
_STEPS: Final[tuple[tuple[str, ...], ...]] = (
    # 2: DBOS's rows of ended requests are removed (`worker/retention.py`); a record takes its webhook along;
    # two files for one upload are told apart by their hash.
    (
        "ALTER TABLE upload ADD COLUMN sha256 VARCHAR(64) DEFAULT '' NOT NULL",
        "ALTER TABLE request ADD COLUMN engine_forgotten BOOLEAN DEFAULT FALSE NOT NULL",
        "DELETE FROM webhook WHERE request_id NOT IN (SELECT id FROM request)",
    ),
    # 3: what a submit and a look for deadlines cost does not grow with the finished requests that are kept.
    (
        "CREATE INDEX request_waiting_of_owner ON request (owner, priority, place) WHERE status = 'IN_QUEUE'",
        "CREATE INDEX request_rendering ON request (priority, place) WHERE status = 'IN_PROGRESS'",
        "CREATE INDEX request_deadline ON request (start_deadline) "
        "WHERE status = 'IN_QUEUE' AND start_deadline IS NOT NULL",
    ),
    # 4: a picture and the trace of a request; an owner's history costs the same however much is kept.
    (
        "ALTER TABLE request ADD COLUMN thumbnail_key TEXT",
        "ALTER TABLE request ADD COLUMN traceparent VARCHAR(64)",
        "CREATE INDEX request_of_owner ON request (owner, seq)",
    ),
)
CURRENT: Final = _FIRST + len(_STEPS)


class NewerDatabase(SettingsError):
    """Its tables are of a later version of this server, which alone can use them."""


_version_table = sa.Table("schema_version", sa.MetaData(), sa.Column("version", sa.Integer, nullable=False))


def migrate(url: str, lock: Path) -> None:
    """Create or upgrade all tables, ours and those of DBOS; processes that start together do so one after the other.

    `lock` is the file that they lock with SQLite.

    Raises:
        SettingsError: the database is of a newer version of this server.
    """
    _make_private(url)
    database = create_engine(url)
    try:
        with migration_lock(database, lock):
            _upgrade(database)
            DBOS.migrate(url)
    finally:
        database.dispose()


def check(database: sa.Engine) -> None:
    """For a process that works on tables which others have made.

    Raises:
        SettingsError: they do not have this server's version.
    """
    with database.connect() as connection:
        found, there = _found(connection), set(sa.inspect(connection).get_table_names())
    if found is not None and found > CURRENT:
        raise _newer(found)
    if found != CURRENT or not metadata.tables.keys() <= there:
        raise SettingsError("database_url: the tables are not there or older; run `hunyuan-custom migrate` first")


def _upgrade(database: sa.Engine) -> None:
    """All or nothing."""
    with database.begin() as transaction:
        if transaction.dialect.name == "sqlite":
            transaction.exec_driver_sql("BEGIN IMMEDIATE")  # its driver begins with the first row, not the first table
        found = _found(transaction)
        if found is not None and found > CURRENT:
            raise _newer(found)
        metadata.create_all(transaction)
        _version_table.create(transaction, checkfirst=True)
        for step in _STEPS[found - _FIRST :] if found is not None else ():
            for statement in step:
                transaction.exec_driver_sql(statement)
        transaction.execute(_version_table.delete())
        transaction.execute(_version_table.insert().values(version=CURRENT))


def _found(connection: sa.Connection) -> int | None:
    """The version of the tables, None when there are none."""
    if not sa.inspect(connection).has_table("request"):
        return None
    if not sa.inspect(connection).has_table(_version_table.name):
        return _FIRST
    return int(connection.execute(sa.select(_version_table.c.version)).scalar_one())


def _newer(found: int) -> NewerDatabase:
    return NewerDatabase(f"database_url: the database has version {found}, this server knows {CURRENT}: upgrade it")


def _make_private(url: str) -> None:
    """The database holds signing keys: no other user of this machine reads it (SQLite's other files follow it)."""
    path = sa.make_url(url).database
    if url.startswith("sqlite") and path and path != ":memory:":
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        Path(path).touch(mode=0o600)
        Path(path).chmod(0o600)
