"""Images that clients upload before they submit: stored under a random key, owned, counted and deleted in time."""

import hashlib
import re
import time
from collections.abc import Callable
from pathlib import Path, PurePosixPath

import sqlalchemy as sa

from server.db.locks import lock_uploads
from server.db.outage import OUTAGES, is_outage
from server.db.tables import request_table, upload_table
from server.errors import BadRequest, BodyTooLarge, UnsupportedUpload
from server.settings import LimitSettings
from server.storage.files import Storage
from server.untrusted.media_types import HEAD_BYTES, media_type

_SWEEP_BATCH = 200
_EXTENSIONS = {name: name for name in ("png", "webp", "gif", "bmp", "tiff", "avif")} | {"jpeg": "jpg", "jpg": "jpg"}
_NOT_IN_A_NAME = re.compile(r"[^A-Za-z0-9_-]+")


class Uploads:
    """The `upload` table and its files. `clock` gives Unix seconds."""

    def __init__(
        self,
        database: sa.Engine,
        storage: Storage,
        limits: LimitSettings,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._database = database
        self._storage = storage
        self._limits = limits
        self._clock = clock

    def new_key(self, file_name: str, content_type: str) -> str:
        """A key for a file that is to come; only harmless characters of the client's name are kept."""
        stem = _NOT_IN_A_NAME.sub("-", PurePosixPath(file_name).stem)[:60].strip("-") or "image"
        subtype = content_type.partition("/")[2].lower()
        extension = _EXTENSIONS.get(subtype, "img")
        return self._storage.new_key("uploads", f"{stem}.{extension}")

    def keep(self, owner: str, key: str, received: Path, *, ttl_s: float | None = None) -> None:
        """Take a received file over; the same file may be sent again under its key.

        Raises:
            UnsupportedUpload: not the beginning of an image that is accepted.
            BodyTooLarge: the owner has too many bytes here already.
            BadRequest: another file has that key.
        """
        with received.open("rb") as file:
            if media_type(file.read(HEAD_BYTES)) is None:
                raise UnsupportedUpload
            file.seek(0)
            digest = hashlib.file_digest(file, "sha256")
        life = min(ttl_s or self._limits.upload_ttl_s, self._limits.upload_ttl_s)
        added = self._register(owner, key, received.stat().st_size, digest.hexdigest(), self._clock() + life)
        try:
            if self._storage.size(key) is None:
                self._storage.put(received, key)
        except Exception:
            if added:
                self._take_back(key)
            raise

    def is_expired(self, key: str) -> bool:
        """Whether the time of an upload is over; its file is there until the next sweep."""
        query = sa.select(upload_table.c.expires_at).where(upload_table.c.key == key)
        with self._database.connect() as connection:
            expires_at = connection.execute(query).scalar_one_or_none()
        return expires_at is not None and expires_at < self._clock()

    def delete_unused(self, owner: str, key: str) -> None:
        """Delete an upload of this owner, unless a request names it that is kept.

        A submit at the same moment may lose its image; it then ends as with an upload whose time is over.
        """
        mine = sa.select(upload_table.c.expires_at).where(upload_table.c.key == key, upload_table.c.owner == owner)
        with self._database.connect() as connection:
            expires_at = connection.execute(mine).scalar_one_or_none()
            if expires_at is None or self._is_used(connection, key, since=expires_at - self._limits.upload_ttl_s):
                return
        self._storage.delete(key)
        with self._database.begin() as transaction:
            transaction.execute(upload_table.delete().where(upload_table.c.key == key))

    def _is_used(self, connection: sa.Connection, key: str, *, since: float) -> bool:
        """`since`: a request that was over before the upload was there cannot name it, and the index leaves it out."""
        finished_at, token = request_table.c.finished_at, key.split("/")[2]
        naming = sa.select(1).where(
            sa.or_(finished_at.is_(None), finished_at >= since),
            request_table.c.input_json.contains(token, autoescape=True),
        )
        return connection.execute(naming.limit(1)).first() is not None

    def sweep(self) -> int:
        """Delete what has expired; returns how many files."""
        expired = sa.select(upload_table.c.key).where(upload_table.c.expires_at < self._clock()).limit(_SWEEP_BATCH)
        with self._database.connect() as connection:
            keys = list(connection.execute(expired).scalars())
        gone = [key for key in keys if self._storage.discard(key)]
        if gone:
            with self._database.begin() as transaction:
                transaction.execute(upload_table.delete().where(upload_table.c.key.in_(gone)))
        return len(gone)

    def _register(self, owner: str, key: str, size: int, sha256: str, expires_at: float) -> bool:
        """The row comes first, and decides which of two files has the key. Returns whether it is new.

        A crash in between leaves a row without a file, which a repetition or the sweep puts right.
        """
        total = sa.select(sa.func.sum(upload_table.c.bytes)).where(upload_table.c.owner == owner)
        row = {"key": key, "owner": owner, "bytes": size, "sha256": sha256, "expires_at": expires_at}
        try:
            with self._database.begin() as transaction:
                lock_uploads(transaction, owner)  # two uploads must not both be the last that fits
                transaction.execute(upload_table.insert().values(**row))
                if int(transaction.execute(total).scalar_one()) > self._limits.upload_bytes_per_owner:
                    raise BodyTooLarge(f"Your uploads may take {self._limits.upload_bytes_per_owner} bytes in all")
        except sa.exc.IntegrityError:
            if self._sha256_of(key) != sha256:
                raise BadRequest("This URL has been used for another file") from None
            return False
        return True

    def _take_back(self, key: str) -> None:
        """Its file was not stored: it must not count against its owner until it expires, once for every try."""
        try:
            with self._database.begin() as transaction:
                transaction.execute(upload_table.delete().where(upload_table.c.key == key))
        except sa.exc.SQLAlchemyError as error:
            if not is_outage(error):
                raise
            OUTAGES.noticed(error)  # the sweep does it

    def _sha256_of(self, key: str) -> str | None:
        query = sa.select(upload_table.c.sha256).where(upload_table.c.key == key)
        with self._database.connect() as connection:
            return connection.execute(query).scalar_one_or_none()
