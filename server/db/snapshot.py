"""Several reads as of one moment."""

from collections.abc import Iterator
from contextlib import contextmanager

import sqlalchemy as sa


@contextmanager
def snapshot(database: sa.Engine) -> Iterator[sa.Connection]:
    """A transaction that only reads: what others write meanwhile is not seen, and nobody waits for it."""
    with database.connect() as connection:
        if connection.dialect.name == "sqlite":
            connection.exec_driver_sql("BEGIN")  # its driver begins none for a SELECT
        else:
            connection.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)
        yield connection
