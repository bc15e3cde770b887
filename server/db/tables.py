"""The tables of the one database.

DBOS keeps its own tables beside these in the same database, so that a submit is one transaction; nothing a user sees
is read from them.
"""

from typing import Any

import sqlalchemy as sa

metadata = sa.MetaData()


def literal(word: str) -> sa.ColumnClause[Any]:
    """A word of ours in the statement itself: for a parameter SQLite never takes a partial index."""
    return sa.literal_column(f"'{word}'", sa.String)


request_table = sa.Table(
    "request",
    metadata,
    sa.Column("seq", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("id", sa.String(36), nullable=False, unique=True),
    sa.Column("owner", sa.String(64), nullable=False),
    sa.Column("status", sa.String(16), nullable=False),
    sa.Column("priority", sa.Integer, nullable=False),
    sa.Column("place", sa.Integer, key="queue_order", nullable=False, default=0),  # made by `jobs/fair_queue.py`
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
    sa.Column("thumbnail_key", sa.Text),  # beside the video, in the same folder
    sa.Column("traceparent", sa.String(64)),  # W3C Trace Context of the submit
    sqlite_autoincrement=True,
)
_priority, _place = request_table.c.priority, request_table.c.queue_order


def _index_of(name: str, *columns: sa.Column[Any], rows: sa.ColumnElement[bool]) -> None:
    """An index of some rows. With these four the queue costs the same however many finished requests are kept."""
    sa.Index(name, *columns, sqlite_where=rows, postgresql_where=rows)


_waits = request_table.c.status == literal("IN_QUEUE")
_index_of("request_waiting", _priority, _place, request_table.c.seq, rows=_waits)
_index_of("request_waiting_of_owner", request_table.c.owner, _priority, _place, rows=_waits)
_index_of("request_rendering", _priority, _place, rows=request_table.c.status == literal("IN_PROGRESS"))
_index_of(
    "request_deadline",
    request_table.c.start_deadline,
    rows=sa.and_(_waits, request_table.c.start_deadline.is_not(None)),
)
sa.Index("request_idempotency", request_table.c.owner, request_table.c.idempotency_key, unique=True)
sa.Index("request_by_video", request_table.c.video_key)
sa.Index("request_finished", request_table.c.finished_at)
sa.Index("request_of_owner", request_table.c.owner, request_table.c.seq)  # a page of an owner's history

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

# How far a running job is (`jobs/progress.py`): written about once a second, gone when the job ends or waits again.
progress_table = sa.Table(
    "progress",
    metadata,
    sa.Column("request_id", sa.String(36), primary_key=True),
    sa.Column("stage", sa.String(16), nullable=False),
    sa.Column("done", sa.Integer, nullable=False),
    sa.Column("total", sa.Integer, nullable=False),
    sa.Column("seconds_left", sa.Float),
    sa.Column("preview", sa.LargeBinary),  # a WebP
    sa.Column("preview_version", sa.Integer, nullable=False, default=0),  # 0: there is none
    sa.Column("at", sa.Float, nullable=False),
)

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

# What a worker has measured since its first start (`jobs/measurements.py`); stays when the worker is forgotten.
measurement_table = sa.Table(
    "worker_measurement",
    metadata,
    sa.Column("worker_id", sa.String(64), primary_key=True),
    sa.Column("measured_json", sa.Text, nullable=False),
    sa.Column("at", sa.Float, nullable=False),
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

# Keys this server signs with: made once, the same for all its processes, part of every backup.
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

# Kept when requests are deleted: no foreign key, no user text.
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
