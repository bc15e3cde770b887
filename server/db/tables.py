"""Tables, engine and migration of the one database: SQLite embedded, Postgres in the cluster.

DBOS keeps its own tables beside ours in the same database, so that a submit is one transaction; nothing a user
sees is read from them.
"""

import fcntl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import sqlalchemy as sa
from dbos import DBOS
from sqlalchemy.engine.interfaces import DBAPIConnection

from server.db.migrations import upgrade

metadata = sa.MetaData()

request_table = sa.Table(
    "request",
    metadata,
    sa.Column("seq", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("id", sa.String(36), nullable=False, unique=True),
    sa.Column("owner", sa.String(64), nullable=False),
    sa.Column("status", sa.String(16), nullable=False),
    sa.Column("priority", sa.Integer, nullable=False),
    sa.Column("place", sa.Integer, nullable=False, default=0),  # in line, made by `jobs/fair_queue.py`
    sa.Column("input_json", sa.Text, nullable=False),
    sa.Column("seed", sa.String(20), nullable=False),  # text: 2**64 - 1 does not fit a signed 64-bit column
    sa.Column("base_url", sa.Text, nullable=False),
    sa.Column("source_key", sa.Text),
    sa.Column("image_key", sa.Text),
    sa.Column("video_key", sa.Text),
    sa.Column("video_bytes", sa.BigInteger),
    sa.Column("attempt", sa.Integer, nullable=False, default=0),
    sa.Column("faults", sa.Integer, nullable=False, default=0),
    sa.Column("worker_id", sa.String(64)),
    sa.Column("cancel_requested", sa.Boolean, nullable=False, default=False),
    sa.Column("created_at", sa.Float, nullable=False),
    sa.Column("started_at", sa.Float),
    sa.Column("finished_at", sa.Float),
    sa.Column("start_deadline", sa.Float),
    sa.Column("no_retry", sa.Boolean, nullable=False, default=False),
    sa.Column("store_io", sa.Boolean, nullable=False, default=True),
    sa.Column("media_ttl_s", sa.Float),
    sa.Column("media_deleted", sa.Boolean, nullable=False, default=False),
    sa.Column("idempotency_key", sa.String(255)),
    sa.Column("inference_time", sa.Float),
    sa.Column("response_status", sa.Integer),
    sa.Column("response_json", sa.Text),
    sa.Column("response_headers", sa.Text),
    sa.Column("error_type", sa.String(64)),
    sa.Column("error", sa.Text),
    sa.Column("webhook_url", sa.Text),
    sa.Column("engine_forgotten", sa.Boolean, nullable=False, server_default=sa.false()),
    sqlite_autoincrement=True,
)
sa.Index(
    "request_waiting",
    request_table.c.priority,
    request_table.c.place,
    request_table.c.seq,
    sqlite_where=request_table.c.status == "IN_QUEUE",
    postgresql_where=request_table.c.status == "IN_QUEUE",
)
sa.Index("request_idempotency", request_table.c.owner, request_table.c.idempotency_key, unique=True)
sa.Index("request_by_video", request_table.c.video_key)
sa.Index("request_finished", request_table.c.finished_at)

log_table = sa.Table(
    "request_log",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("request_id", sa.String(36), nullable=False),
    sa.Column("message", sa.Text, nullable=False),
    sa.Column("level", sa.String(8), nullable=False),
    sa.Column("at", sa.Float, nullable=False),
    sqlite_autoincrement=True,
)
sa.Index("request_log_by_request", log_table.c.request_id, log_table.c.id)

worker_table = sa.Table(
    "worker",
    metadata,
    sa.Column("id", sa.String(64), primary_key=True),
    sa.Column("pid", sa.Integer, nullable=False),
    sa.Column("generator_pid", sa.Integer),
    sa.Column("state", sa.String(16), nullable=False),
    sa.Column("draining", sa.Boolean, nullable=False, default=False),
    sa.Column("detail", sa.Text, nullable=False),
    sa.Column("heartbeat_at", sa.Float, nullable=False),
)

# Secrets are never stored, only their SHA-256: they are random, so nothing slower is needed.
key_table = sa.Table(
    "api_key",
    metadata,
    sa.Column("id", sa.String(36), primary_key=True),
    sa.Column("owner", sa.String(64), nullable=False),
    sa.Column("name", sa.String(80), nullable=False),
    sa.Column("secret_sha256", sa.String(64), nullable=False),
    sa.Column("created_at", sa.Float, nullable=False),
    sa.Column("revoked_at", sa.Float),
)

# What this server signs with: made once, the same for all its processes, part of every backup.
secret_table = sa.Table(
    "secret",
    metadata,
    sa.Column("name", sa.String(32), primary_key=True),
    sa.Column("value", sa.String(64), nullable=False),  # hex
)

upload_table = sa.Table(
    "upload",
    metadata,
    sa.Column("key", sa.String(200), primary_key=True),
    sa.Column("owner", sa.String(64), nullable=False),
    sa.Column("bytes", sa.BigInteger, nullable=False),
    sa.Column("sha256", sa.String(64), nullable=False, server_default=""),  # empty: from before there was one
    sa.Column("expires_at", sa.Float, nullable=False),
)
sa.Index("upload_by_owner", upload_table.c.owner)
sa.Index("upload_by_expiry", upload_table.c.expires_at)

webhook_table = sa.Table(
    "webhook",
    metadata,
    sa.Column("request_id", sa.String(36), primary_key=True),
    sa.Column("url", sa.Text, nullable=False),
    sa.Column("state", sa.String(16), nullable=False),
    sa.Column("attempts", sa.Integer, nullable=False, default=0),
    sa.Column("next_at", sa.Float, nullable=False),
    sa.Column("leased_until", sa.Float, nullable=False, default=0.0),
    sa.Column("outcome", sa.Text, nullable=False, default=""),
)
sa.Index("webhook_due", webhook_table.c.state, webhook_table.c.next_at)

# Outlives the requests: no foreign key, no user text.
usage_table = sa.Table(
    "usage_record",
    metadata,
    sa.Column("request_id", sa.String(36), primary_key=True),
    sa.Column("owner", sa.String(64), nullable=False),
    sa.Column("finished_at", sa.Float, nullable=False),
    sa.Column("outcome", sa.String(64), nullable=False),
    sa.Column("gpu_seconds", sa.Float, nullable=False),
    sa.Column("frames", sa.Integer),
    sa.Column("resolution", sa.String(16)),
)
sa.Index("usage_by_time", usage_table.c.finished_at)


# libpq options: a server that is gone is noticed within seconds, also when its machine fell silent.
POSTGRES_OPTIONS: Final = {
    "connect_timeout": 3,
    "keepalives_idle": 5,
    "keepalives_interval": 2,
    "keepalives_count": 3,
    "tcp_user_timeout": 10_000,
    "application_name": "hunyuan-custom",
}

# A machine that froze within a transaction keeps its locks no longer: others must be able to take over.
_SILENCE: Final = "10s"

_MIGRATION_LOCK: Final = 0x48594341  # any number that is ours; advisory locks share one space per database
_LOCK_POLL_S: Final = 0.1
_LINE_LOCK: Final = 0x48594342


def create_engine(url: str) -> sa.Engine:
    """Open the database.

    SQLite runs in WAL mode with `synchronous=FULL`: an accepted job survives a power cut. `busy_timeout` comes
    first, because switching a fresh file to WAL fails at once when another process is doing the same.
    Postgres connections are tried before they are used, so that a restart of the server costs no request. Errors say
    nothing of a statement's values: those are prompts, and the log is no place for them.
    """
    if not url.startswith("sqlite"):
        return sa.create_engine(
            url,
            pool_size=10,
            max_overflow=30,
            pool_timeout=5,
            pool_pre_ping=True,
            connect_args={**POSTGRES_OPTIONS, "options": f"-c idle_in_transaction_session_timeout={_SILENCE}"},
            hide_parameters=True,
        )
    engine = sa.create_engine(url, hide_parameters=True)

    @sa.event.listens_for(engine, "connect")
    def _pragmas(connection: DBAPIConnection, _record: object) -> None:
        cursor = connection.cursor()
        for pragma in ("busy_timeout=5000", "journal_mode=WAL", "synchronous=FULL"):
            cursor.execute(f"PRAGMA {pragma}")
        cursor.close()

    return engine


def migrate(url: str, lock: Path) -> None:
    """Create or upgrade all tables, ours and the engine's; processes that start together take turns.

    They meet at the file `lock`, or on Postgres, where they may be on several machines, in the database.

    Raises:
        SettingsError: the database is of a newer version of this server.
    """
    _make_private(url)
    engine = create_engine(url)
    try:
        with _file_lock(lock) if engine.dialect.name == "sqlite" else _advisory_lock(engine):
            upgrade(engine, metadata)
            DBOS.migrate(url)
    finally:
        engine.dispose()


def one_at_a_time(transaction: sa.Connection) -> None:
    """Until its end, no other transaction that calls this goes on.

    For reads that must still be true at the write after them. On SQLite a transaction that writes first, as ours do,
    is alone anyway.
    """
    if transaction.dialect.name != "sqlite":
        transaction.execute(sa.select(sa.func.pg_advisory_xact_lock(_LINE_LOCK)))


def _make_private(url: str) -> None:
    """The database holds signing keys: nobody else on this machine reads it (SQLite's other files follow it)."""
    path = sa.make_url(url).database
    if url.startswith("sqlite") and path and path != ":memory:":
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        Path(path).touch(mode=0o600)
        Path(path).chmod(0o600)


@contextmanager
def _file_lock(path: Path) -> Iterator[None]:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


@contextmanager
def _advisory_lock(engine: sa.Engine) -> Iterator[None]:
    # Asked for again and again, outside of transactions: the migration of the engine's tables builds indexes
    # concurrently, which waits for everybody else's statement to end, one that waits for this lock included.
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        while not connection.execute(sa.select(sa.func.pg_try_advisory_lock(_MIGRATION_LOCK))).scalar_one():
            time.sleep(_LOCK_POLL_S)
        try:
            yield
        finally:
            connection.execute(sa.select(sa.func.pg_advisory_unlock(_MIGRATION_LOCK)))
