"""Which form the tables of a database have, and the steps that lead from each form to the next.

Version 1 is what there was before versions. A step is for what `create_all` leaves alone: columns and indexes of
tables that are there already, and rows; new tables appear by themselves. Steps take away nothing that the version
before still reads: while a cluster is upgraded, its processes work on the new form.
"""

from typing import Final

import sqlalchemy as sa

from server.errors import SettingsError

_FIRST: Final = 1
# SQL that SQLite and Postgres both take. What has been released is never changed, only followed by another step.
_STEPS: Final[tuple[tuple[str, ...], ...]] = (
    # 2: the engine's rows of ended requests are removed (`worker/retention.py`); a record takes its webhook along;
    # two files for one upload are told apart by their hash.
    (
        "ALTER TABLE upload ADD COLUMN sha256 VARCHAR(64) DEFAULT '' NOT NULL",
        "ALTER TABLE request ADD COLUMN engine_forgotten BOOLEAN DEFAULT FALSE NOT NULL",
        "DELETE FROM webhook WHERE request_id NOT IN (SELECT id FROM request)",
    ),
)
CURRENT: Final = _FIRST + len(_STEPS)

_version_table = sa.Table("schema_version", sa.MetaData(), sa.Column("version", sa.Integer, nullable=False))


def upgrade(database: sa.Engine, tables: sa.MetaData) -> None:
    """Create the tables or bring them to the current form, all or nothing. The caller keeps others out.

    Raises:
        SettingsError: a newer version of this server has been here.
    """
    with database.begin() as transaction:
        if transaction.dialect.name == "sqlite":
            transaction.exec_driver_sql("BEGIN IMMEDIATE")  # its driver begins with the first row, not the first table
        found = _found(transaction)
        if found is not None and found > CURRENT:
            raise _newer(found)
        tables.create_all(transaction)
        _version_table.create(transaction, checkfirst=True)
        for step in _STEPS[found - _FIRST :] if found is not None else ():
            for statement in step:
                transaction.exec_driver_sql(statement)
        transaction.execute(_version_table.delete())
        transaction.execute(_version_table.insert().values(version=CURRENT))


def check(database: sa.Engine) -> None:
    """Asked by a process that works on tables which others have made.

    Raises:
        SettingsError: they do not have the form it knows.
    """
    with database.connect() as connection:
        found = _found(connection)
    if found is not None and found > CURRENT:
        raise _newer(found)
    if found != CURRENT:
        raise SettingsError("database_url: the tables are not there or older; run `hunyuan-custom migrate` first")


def _found(connection: sa.Connection) -> int | None:
    """The version of the tables, None when there are none."""
    if not sa.inspect(connection).has_table("request"):
        return None
    if not sa.inspect(connection).has_table(_version_table.name):
        return _FIRST
    return int(connection.execute(sa.select(_version_table.c.version)).scalar_one())


def _newer(found: int) -> SettingsError:
    return SettingsError(f"database_url: the database has version {found}, this server knows {CURRENT}: upgrade it")
