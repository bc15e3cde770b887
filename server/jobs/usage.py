"""Usage records as CSV: who used how much of the GPU, and what came of it."""

import csv
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any, TextIO

import sqlalchemy as sa

from server.db.tables import usage_table

COLUMNS = ("finished_at", "owner", "request_id", "outcome", "gpu_seconds", "frames", "resolution")


def read_usage(database: sa.Engine, *, since: datetime | None, owner: str | None) -> Iterator[dict[str, Any]]:
    """The records in order of time, which is Unix seconds, by the names of their columns."""
    query = sa.select(*(usage_table.c[name] for name in COLUMNS)).order_by(usage_table.c.finished_at)
    if since is not None:
        query = query.where(usage_table.c.finished_at >= since.replace(tzinfo=since.tzinfo or UTC).timestamp())
    if owner is not None:
        query = query.where(usage_table.c.owner == owner)
    with database.connect() as connection:
        for row in connection.execute(query):
            yield dict(zip(COLUMNS, row, strict=True))


def write_csv(database: sa.Engine, out: TextIO, *, since: datetime | None, owner: str | None) -> int:
    """Write the records in order of time; returns how many."""
    writer = csv.writer(out)
    writer.writerow(COLUMNS)
    count = 0
    for record in read_usage(database, since=since, owner=owner):
        at = datetime.fromtimestamp(record["finished_at"], UTC).isoformat(timespec="milliseconds")
        shown = record | {"finished_at": at, "gpu_seconds": f"{record['gpu_seconds']:.3f}"}
        writer.writerow([shown[name] for name in COLUMNS])
        count += 1
    return count
