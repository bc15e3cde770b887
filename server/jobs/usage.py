"""Usage records as CSV: who used how much of the GPU, and what came of it."""

import csv
from datetime import UTC, datetime
from typing import TextIO

import sqlalchemy as sa

from server.db.tables import usage_table

COLUMNS = ("finished_at", "owner", "request_id", "outcome", "gpu_seconds", "frames", "resolution")


def write_csv(database: sa.Engine, out: TextIO, *, since: datetime | None, owner: str | None) -> int:
    """Write the records in order of time; returns how many."""
    query = sa.select(*(usage_table.c[name] for name in COLUMNS)).order_by(usage_table.c.finished_at)
    if since is not None:
        query = query.where(usage_table.c.finished_at >= since.replace(tzinfo=since.tzinfo or UTC).timestamp())
    if owner is not None:
        query = query.where(usage_table.c.owner == owner)
    writer = csv.writer(out)
    writer.writerow(COLUMNS)
    count = 0
    with database.connect() as connection:
        for row in connection.execute(query):
            at = datetime.fromtimestamp(row.finished_at, UTC).isoformat(timespec="milliseconds")
            writer.writerow([at, *row[1:4], f"{row.gpu_seconds:.3f}", *row[5:]])
            count += 1
    return count
