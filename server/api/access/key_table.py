"""The table of keys: `<id>:<secret>` as fal's clients send them. A secret is shown once and kept as its hash."""

import hashlib
import re
import secrets
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass

import sqlalchemy as sa

from server.db.tables import key_table
from server.errors import SettingsError
from server.jobs.job import LOCAL_OWNER

_OWNER = re.compile(r"[A-Za-z0-9._-]{1,64}")  # it is sent in a webhook's header


class KeyCommandError(SettingsError):
    """A key command that cannot be done; the message is for the person at the command line."""


@dataclass(frozen=True, slots=True)
class Key:
    """One key, without its secret. `revoked_at` may lie ahead: a rotated key works until then."""

    id: str
    owner: str
    name: str
    created_at: float
    revoked_at: float | None


class KeyTable:
    """Create, list, revoke and rotate; what the command line does."""

    def __init__(self, database: sa.Engine, clock: Callable[[], float] = time.time) -> None:
        self._database = database
        self._clock = clock

    def create(self, owner: str, name: str = "") -> str:
        """Make a key and return `<id>:<secret>`; the secret cannot be read again."""
        if not _OWNER.fullmatch(owner):
            raise KeyCommandError(f"owner {owner!r}: letters, digits, dot, dash and underscore only, at most 64")
        with self._database.begin() as transaction:
            return self._add(transaction, owner, name)

    def all(self) -> list[Key]:
        """Every key there ever was, oldest first."""
        columns = [key_table.c[name] for name in Key.__slots__]
        with self._database.connect() as connection:
            rows = connection.execute(sa.select(*columns).order_by(key_table.c.created_at))
            return [Key(*row) for row in rows]

    def revoke(self, key_id: str, *, in_s: float = 0.0) -> None:
        """End a key, now or after a while."""
        with self._database.begin() as transaction:
            self._end(transaction, key_id, in_s)

    def rotate(self, key_id: str, *, grace_s: float = 0.0) -> str:
        """A new key for the same owner; the old one ends after the grace. Both happen, or neither."""
        old = next((key for key in self.all() if key.id == key_id), None)
        if old is None:
            raise KeyCommandError(f"{key_id}: no such key")
        with self._database.begin() as transaction:
            made = self._add(transaction, old.owner, old.name)
            self._end(transaction, key_id, grace_s)
        return made

    def _add(self, transaction: sa.Connection, owner: str, name: str) -> str:
        key_id, secret = str(uuid.uuid4()), secrets.token_hex(32)
        row = {"id": key_id, "owner": owner, "name": name[:80], "secret_sha256": secret_digest(secret)}
        transaction.execute(key_table.insert().values(**row, created_at=self._clock()))
        return f"{key_id}:{secret}"

    def _end(self, transaction: sa.Connection, key_id: str, in_s: float) -> None:
        now = self._clock()
        works = sa.or_(key_table.c.revoked_at.is_(None), key_table.c.revoked_at > now)
        ending = key_table.update().where(key_table.c.id == key_id, works).values(revoked_at=now + in_s)
        if not transaction.execute(ending).rowcount:
            raise KeyCommandError(f"{key_id}: no such key, or revoked already")


def secret_digest(secret: str) -> str:
    """What the table keeps of a secret. Secrets are random, so a fast hash is enough."""
    return hashlib.sha256(secret.encode("utf-8", "surrogateescape")).hexdigest()


def first_key(database: sa.Engine) -> str | None:
    """A key for the operator if there is none yet: beyond loopback a server without keys would be of no use."""
    table = KeyTable(database)
    return None if table.all() else table.create(LOCAL_OWNER, "first start")
