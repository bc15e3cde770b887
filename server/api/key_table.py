"""Keys of owners: `<id>:<secret>` as fal's clients send them. The secret is shown once and kept as its hash."""

import hashlib
import hmac
import re
import secrets
import time
import uuid
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import sqlalchemy as sa

from server.db.tables import key_table
from server.errors import SettingsError, Unauthorized
from server.jobs.job import LOCAL_OWNER

_OWNER = re.compile(r"[A-Za-z0-9._-]{1,64}")  # it is sent in a webhook's header
_NO_SECRET = hashlib.sha256(secrets.token_bytes(32)).hexdigest()


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
        """Make a key and return `<id>:<secret>`; nobody can read the secret again."""
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
        row = {"id": key_id, "owner": owner, "name": name[:80], "secret_sha256": _digest(secret)}
        transaction.execute(key_table.insert().values(**row, created_at=self._clock()))
        return f"{key_id}:{secret}"

    def _end(self, transaction: sa.Connection, key_id: str, in_s: float) -> None:
        now = self._clock()
        works = sa.or_(key_table.c.revoked_at.is_(None), key_table.c.revoked_at > now)
        ending = key_table.update().where(key_table.c.id == key_id, works).values(revoked_at=now + in_s)
        if not transaction.execute(ending).rowcount:
            raise KeyCommandError(f"{key_id}: no such key, or revoked already")


class KeyRing:
    """What the API asks: who sent this header? Read from the table now and then, kept in memory."""

    def __init__(
        self, database: sa.Engine, *, always_required: bool, reload_s: float = 0.0, proxy_owner: str = ""
    ) -> None:
        self._database = database
        self._proxy_owner = proxy_owner
        self._always_required = always_required
        self._reload_s = reload_s
        self._read_at = float("-inf")
        self._owners: dict[str, tuple[str, str]] = {}
        self._any = False
        self._reader = ThreadPoolExecutor(1, "keys")
        self._reading: Future[None] | None = None

    def required(self) -> bool:
        """Whether callers must show a key: beyond loopback always, else once there ever was one.

        A server whose last key was revoked is closed, not open.
        """
        self._refresh()
        return self._always_required or self._any

    def caller(self, authorization: str | None, *, via_proxy: bool) -> str:
        """Whose call it is. Browser applications behind the proxy door hold no key: a setting may name their owner.

        Raises:
            Unauthorized: keys exist, and none of them was shown.
        """
        if not self.required():
            return LOCAL_OWNER
        if authorization is None and via_proxy and self._proxy_owner:
            return self._proxy_owner
        return self.owner_of(authorization)

    def owner_of(self, authorization: str | None) -> str:
        """The owner of the key in an `Authorization: Key id:secret` (or Bearer) header.

        Raises:
            Unauthorized: in fal's words.
        """
        self._refresh()
        if not authorization:
            raise Unauthorized("Authentication is required to access this application.")
        scheme, key_id, colon, secret = _split(authorization)
        if scheme.lower() not in {"key", "bearer"} or not colon:
            raise Unauthorized("Invalid Key Authorization header format. Expected '<key_id>:<key_secret>'.")
        owner, digest = self._owners.get(key_id, ("", _NO_SECRET))
        if not hmac.compare_digest(_digest(secret), digest) or not owner:
            raise Unauthorized
        return owner

    def id_in(self, authorization: str) -> str:
        """The id of the key in such a header, good or not."""
        return _split(authorization)[1]

    def works(self, key_id: str) -> bool:
        """Whether a key of that id is good."""
        self._refresh()
        return key_id in self._owners

    def _refresh(self) -> None:
        """Read again when it is time.

        A file answers at once. A database elsewhere must not keep the event loop waiting: a thread asks it, and what
        is known holds meanwhile, also while it is away.
        """
        if time.monotonic() - self._read_at < self._reload_s:
            return
        if self._database.dialect.name == "sqlite" or self._read_at == float("-inf"):
            self._read()
        elif self._reading is None or self._reading.done():
            self._reading = self._reader.submit(self._read)

    def _read(self) -> None:
        now = time.monotonic()
        columns = (key_table.c.id, key_table.c.owner, key_table.c.secret_sha256, key_table.c.revoked_at)
        with self._database.connect() as connection:
            rows = connection.execute(sa.select(*columns)).all()
        self._any, today = bool(rows), time.time()
        self._owners = {row[0]: (row[1], row[2]) for row in rows if row[3] is None or row[3] > today}
        self._read_at = now


def _split(authorization: str) -> tuple[str, str, str, str]:
    scheme, _, credentials = authorization.strip().partition(" ")
    return scheme, *credentials.strip().partition(":")


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode("utf-8", "surrogateescape")).hexdigest()


def first_key(database: sa.Engine) -> str | None:
    """A key for the operator if nobody has one yet: beyond loopback a server without keys would be of no use."""
    table = KeyTable(database)
    return None if table.all() else table.create(LOCAL_OWNER, "first start")
