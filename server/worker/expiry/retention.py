"""What is kept how long after a request is over: its images and its video, then its record.

A video past its time answers 410 while the record is there, and 404 like the rest of the request afterwards. Deleting
files comes before noting it, so that a sweep that was interrupted is simply repeated, and a file that could not be
removed is tried again. DBOS's own rows are of no use once a request is over.
"""

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

import sqlalchemy as sa
from dbos import DBOSClient

from server.db.tables import progress_table, request_table
from server.jobs.dbos_queues import forget_workflows
from server.jobs.job import Status
from server.jobs.progress import forget_progress
from server.jobs.records import delete_records
from server.settings import RetentionSettings
from server.storage.files import Storage

logger = logging.getLogger(__name__)

_BATCH: Final = 200  # requests per transaction: a sweep never holds the writer for long
_row = request_table.c
_KEYS: Final = (_row.source_key, _row.image_key, _row.thumbnail_key, _row.video_key)


class Retention:
    """Removes what has expired. `clock` gives Unix seconds."""

    def __init__(
        self,
        database: sa.Engine,
        storage: Storage,
        dbos: DBOSClient,
        settings: RetentionSettings,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._database = database
        self._storage = storage
        self._dbos = dbos
        self._settings = settings
        self._clock = clock

    def sweep(self) -> int:
        """One round; returns how many requests lost something that a user could see."""
        lost = self._forget_private_inputs() + self._delete_media() + self._delete_records()
        self._forget_workflows()
        self._forget_progress()
        return lost

    def _forget_private_inputs(self) -> int:
        """X-Fal-Store-IO: 0 covers the identity image too; the input's text is blanked when the job ends."""
        has_input = sa.or_(_row.source_key.is_not(None), _row.image_key.is_not(None))
        private = (_row.finished_at.is_not(None), _row.store_io.is_(False), has_input)
        forgotten = 0
        for found in self._find(private, _row.source_key, _row.image_key):
            ids = self._delete_files(found)
            self._update(ids, source_key=None, image_key=None)
            forgotten += len(ids)
        return forgotten

    def _delete_media(self) -> int:
        limit = self._settings.media_s
        kept_s: sa.ColumnElement[float] = _row.media_ttl_s  # NULL: for ever, and the comparison below is not true
        if limit:
            kept_s = sa.case((_row.media_ttl_s < limit, _row.media_ttl_s), else_=limit)
        deleted = 0
        for found in self._find((_row.media_deleted.is_(False), _row.finished_at + kept_s < self._clock()), *_KEYS):
            ids = self._delete_files(found)
            self._update(ids, source_key=None, image_key=None, thumbnail_key=None, media_deleted=True)
            deleted += len(ids)
        return deleted

    def _delete_records(self) -> int:
        if not self._settings.records_s:
            return 0
        deleted = 0
        for found in self._find((_row.finished_at < self._clock() - self._settings.records_s,), *_KEYS):
            ids = self._delete_files(found)
            if ids:
                forget_workflows(self._dbos, ids)
                with self._database.begin() as transaction:
                    delete_records(transaction, ids)
            deleted += len(ids)
        return deleted

    def _forget_workflows(self) -> None:
        """Not at once: a hand-over that is repeated after a crash must find the first one."""
        over = (_row.status == Status.COMPLETED, _row.finished_at < self._clock() - self._settings.scratch_s)
        for found in self._find((*over, _row.engine_forgotten.is_(False))):
            ids = [row.id for row in found]
            forget_workflows(self._dbos, ids)
            self._update(ids, engine_forgotten=True)

    def _forget_progress(self) -> None:
        """Of requests that a worker of an earlier version has ended, while a cluster is upgraded."""
        over = sa.select(progress_table.c.request_id).join(request_table, _row.id == progress_table.c.request_id)
        with self._database.connect() as connection:
            ids = list(connection.execute(over.where(_row.status == Status.COMPLETED)).scalars())
        if ids:
            with self._database.begin() as transaction:
                forget_progress(transaction, ids)

    def _find(
        self, conditions: Sequence[sa.ColumnElement[bool]], *columns: sa.ColumnElement[Any]
    ) -> Iterator[Sequence[sa.Row[Any]]]:
        """Batches of (seq, id, columns...) in order: what stays behind in one is not in the way of the next."""
        query = sa.select(_row.seq, _row.id, *columns).where(*conditions).order_by(_row.seq).limit(_BATCH)
        last = -1
        while True:
            with self._database.connect() as connection:
                found = connection.execute(query.where(_row.seq > last)).all()
            if not found:
                return
            last = found[-1].seq
            yield found

    def _delete_files(self, rows: Sequence[sa.Row[Any]]) -> list[str]:
        """Remove the files of all rows; returns the ids of those that have none any more."""
        gone: list[str] = []
        for row in rows:
            keys: list[str] = [key for key in tuple(row)[2:] if key is not None]
            if sum(map(self._storage.discard, keys)) == len(keys):  # each is tried
                gone.append(row.id)
        return gone

    def _update(self, ids: Sequence[str], **values: object) -> None:
        if ids:
            with self._database.begin() as transaction:
                transaction.execute(request_table.update().where(_row.id.in_(ids)).values(**values))
