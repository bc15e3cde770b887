"""What is kept how long after a request is over: its images and its video, then its record.

A video past its time answers 410 while the record is there, and 404 like the rest of the request afterwards. Deleting
files comes before noting it, so that a sweep that was interrupted is simply repeated.
"""

import logging
import time
from collections.abc import Callable, Sequence
from typing import Any

import sqlalchemy as sa

from server.database import log_table, request_table
from server.settings import RetentionSettings
from server.storage import Storage

logger = logging.getLogger(__name__)

_BATCH = 200  # requests per sweep and kind: a sweep never holds the writer for long
_row = request_table.c
_KEYS = (_row.source_key, _row.image_key, _row.video_key)


class Retention:
    """Removes what has expired. `clock` gives Unix seconds."""

    def __init__(
        self,
        database: sa.Engine,
        storage: Storage,
        settings: RetentionSettings,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._database = database
        self._storage = storage
        self._settings = settings
        self._clock = clock

    def sweep(self) -> int:
        """One round; returns how many requests lost something."""
        return self._forget_private_inputs() + self._delete_media() + self._delete_records()

    def _forget_private_inputs(self) -> int:
        """X-Fal-Store-IO: 0 covers the identity image too; the input's text is blanked when the job ends."""
        has_input = sa.or_(_row.source_key.is_not(None), _row.image_key.is_not(None))
        private = (_row.finished_at.is_not(None), _row.store_io.is_(False), has_input)
        found = self._find(sa.select(_row.id, _row.source_key, _row.image_key).where(*private))
        self._delete_files(found)
        self._update([row.id for row in found], source_key=None, image_key=None)
        return len(found)

    def _delete_media(self) -> int:
        limit = self._settings.media_s
        life: sa.ColumnElement[float] = _row.media_ttl_s  # NULL: for ever, and the comparison below is not true
        if limit:
            life = sa.case((_row.media_ttl_s < limit, _row.media_ttl_s), else_=limit)
        expired = (_row.media_deleted.is_(False), _row.finished_at + life < self._clock())
        found = self._find(sa.select(_row.id, *_KEYS).where(*expired))
        self._delete_files(found)
        self._update([row.id for row in found], source_key=None, image_key=None, media_deleted=True)
        return len(found)

    def _delete_records(self) -> int:
        if not self._settings.records_s:
            return 0
        expired = _row.finished_at < self._clock() - self._settings.records_s
        found = self._find(sa.select(_row.id, *_KEYS).where(expired))
        self._delete_files(found)
        ids = [row.id for row in found]
        if ids:
            with self._database.begin() as transaction:
                transaction.execute(log_table.delete().where(log_table.c.request_id.in_(ids)))
                transaction.execute(request_table.delete().where(_row.id.in_(ids)))
        return len(found)

    def _find(self, query: sa.Select[Any]) -> Sequence[sa.Row[Any]]:
        with self._database.connect() as connection:
            return connection.execute(query.order_by(_row.seq).limit(_BATCH)).all()

    def _delete_files(self, rows: Sequence[sa.Row[Any]]) -> None:
        keys: list[str] = [key for row in rows for key in list[Any](row)[1:] if key is not None]
        for key in keys:
            try:
                self._storage.delete(key)
            except OSError:  # one file that cannot be removed must not keep all the others
                logger.exception("%s could not be removed", key)

    def _update(self, ids: Sequence[object], **values: object) -> None:
        if ids:
            with self._database.begin() as transaction:
                transaction.execute(request_table.update().where(_row.id.in_(ids)).values(**values))
