"""A snapshot sees one moment, whatever is written meanwhile, and lets others write."""

import pytest
import sqlalchemy as sa

from server.db.size import database_bytes
from server.db.snapshot import snapshot
from server.db.tables import secret_table


def _names(connection: sa.Connection) -> list[str]:
    return list(connection.execute(sa.select(secret_table.c.name)).scalars())


def test_it_does_not_see_what_is_written_meanwhile(either_database: sa.Engine) -> None:
    with snapshot(either_database) as rows:
        before = _names(rows)
        with either_database.begin() as transaction:
            transaction.execute(secret_table.insert().values(name="new", value="0"))
        assert _names(rows) == before
        assert database_bytes(rows) > 0
    with snapshot(either_database) as rows:
        assert _names(rows) == [*before, "new"]


def test_it_leaves_its_connection_as_it_was(either_database: sa.Engine) -> None:
    with snapshot(either_database) as rows, pytest.raises(ZeroDivisionError):
        _names(rows)
        raise ZeroDivisionError
    with either_database.begin() as transaction:  # not read-only, and not in a transaction already
        transaction.execute(secret_table.insert().values(name="later", value="0"))
