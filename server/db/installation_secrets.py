"""Secrets of this installation: made once, and the same for all its processes."""

import secrets
from typing import Final

import sqlalchemy as sa

from server.db.tables import secret_table

UPLOADS: Final = "uploads"
WEBHOOKS: Final = "webhooks"


def load_secret(database: sa.Engine, name: str) -> bytes:
    """The 32 bytes of that name, made at the first call; processes that start together agree on one."""
    find = sa.select(secret_table.c.value).where(secret_table.c.name == name)
    with database.connect() as connection:
        known = connection.execute(find).scalar_one_or_none()
    if known is None:
        try:
            with database.begin() as transaction:
                transaction.execute(secret_table.insert().values(name=name, value=secrets.token_hex(32)))
        except sa.exc.IntegrityError:
            pass  # another process was first
        with database.connect() as connection:
            known = connection.execute(find).scalar_one()
    return bytes.fromhex(known)
