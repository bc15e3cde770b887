"""How large the database is."""

import sqlalchemy as sa

_SQLITE = sa.text("SELECT page_count * page_size FROM pragma_page_count(), pragma_page_size()")
_POSTGRES = sa.text("SELECT pg_database_size(current_database())")


def database_bytes(connection: sa.Connection) -> int:
    """On its disk, indexes included; SQLite's write-ahead log is not."""
    size = _SQLITE if connection.dialect.name == "sqlite" else _POSTGRES
    return int(connection.execute(size).scalar_one())
