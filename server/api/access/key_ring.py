"""Which owner a request's key belongs to: the keys of the table, in memory."""

import hmac
import secrets
import time
from concurrent.futures import Future, ThreadPoolExecutor

import sqlalchemy as sa

from server.api.access.key_table import secret_digest
from server.db.tables import key_table
from server.errors import Unauthorized
from server.jobs.job import LOCAL_OWNER

_NO_SECRET = secret_digest(secrets.token_hex(32))


class KeyRing:
    """The keys that work, read from the table now and then."""

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
        """The owner of a call. Browser applications behind the proxy path hold no key: a setting may name their owner.

        Raises:
            Unauthorized: keys exist, and the call has none of them.
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
        if not hmac.compare_digest(secret_digest(secret), digest) or not owner:
            raise Unauthorized
        return owner

    def id_in(self, authorization: str) -> str:
        """The id of the key in such a header, whether it works or not."""
        return _split(authorization)[1]

    def works(self, key_id: str) -> bool:
        """Whether the key of that id works."""
        self._refresh()
        return key_id in self._owners

    def _refresh(self) -> None:
        """Read again when it is time.

        SQLite answers at once. A remote database must not block the event loop: a thread asks it, and the known keys
        stay valid meanwhile, also during an outage.
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
