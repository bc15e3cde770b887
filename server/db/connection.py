"""How this server connects: SQLite embedded, Postgres in the cluster."""

from pathlib import Path
from typing import Final

import sqlalchemy as sa
from sqlalchemy.engine.interfaces import DBAPIConnection

from server.db.outage import needs_new_connection

# libpq options: a server that is gone is noticed within seconds, also when its machine stopped answering.
POSTGRES_OPTIONS: Final = {
    "connect_timeout": 3,
    "keepalives_idle": 5,
    "keepalives_interval": 2,
    "keepalives_count": 3,
    "tcp_user_timeout": 10_000,
    "application_name": "hunyuan-custom",
}

# A machine that froze within a transaction keeps its locks no longer: other workers must be able to take over.
_IDLE_IN_TRANSACTION: Final = "10s"


def sqlite_file(url: str) -> Path | None:
    """Where that database is, or will be made by connecting; None for PostgreSQL."""
    kind, _, path = url.partition(":///")
    return Path(path) if kind == "sqlite" else None


def create_engine(url: str) -> sa.Engine:
    """Open the database.

    SQLite runs in WAL mode with `synchronous=FULL`: an accepted job survives a power cut. `busy_timeout` comes
    first, because switching a fresh file to WAL fails at once when another process is doing the same.
    Postgres connections are tested before use, so that a restart of the server fails no request. Errors show no
    values of a statement: those are prompts, and they do not belong in a log.
    """
    if not url.startswith("sqlite"):
        engine = sa.create_engine(
            url,
            pool_size=10,
            max_overflow=30,
            pool_timeout=5,
            pool_pre_ping=True,
            connect_args={
                **POSTGRES_OPTIONS,
                "options": f"-c idle_in_transaction_session_timeout={_IDLE_IN_TRANSACTION}",
            },
            hide_parameters=True,
        )
        sa.event.listen(engine, "handle_error", _reconnect)
        return engine
    engine = sa.create_engine(url, hide_parameters=True)
    sa.event.listen(engine, "handle_error", _reconnect)

    @sa.event.listens_for(engine, "connect")
    def _pragmas(connection: DBAPIConnection, _record: object) -> None:
        cursor = connection.cursor()
        for pragma in ("busy_timeout=5000", "journal_mode=WAL", "synchronous=FULL"):
            cursor.execute(f"PRAGMA {pragma}")
        cursor.close()

    return engine


def _reconnect(context: sa.ExceptionContext) -> None:
    """The next call gets a new connection, and so may all others of the pool."""
    if needs_new_connection(context.original_exception):
        context.is_disconnect = True
