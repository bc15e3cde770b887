"""The end of a request's record: its row, and what other tables have of it. The usage record stays."""

from collections.abc import Collection

import sqlalchemy as sa

from server.db.tables import log_table, progress_table, request_table, webhook_table


def delete_records(transaction: sa.Connection, request_ids: Collection[str]) -> None:
    """Of requests that are over, and whose files and workflows are gone."""
    for table in (log_table, progress_table, webhook_table):
        transaction.execute(table.delete().where(table.c.request_id.in_(request_ids)))
    transaction.execute(request_table.delete().where(request_table.c.id.in_(request_ids)))
