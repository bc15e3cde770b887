"""Files that belong to no request any more: left by processes that were killed, or by requests that ended without them.

Scratch files are on this machine, and every worker finds its own; what is in storage is found by any of them.
"""

import time
from collections.abc import Callable, Sequence
from itertools import islice
from typing import Final

import sqlalchemy as sa

from server.db.tables import request_table
from server.jobs.job import Status, thumbnail_of
from server.settings import RetentionSettings
from server.storage.files import Storage

_AREAS: Final = ("inputs", "files")  # uploads have a table of their own
_BATCH: Final = 200
_SUCCESS: Final = 200
_row = request_table.c


class OrphanFiles:
    """Removes them; `clock` measures how long ago it last looked through all of the storage."""

    def __init__(
        self,
        database: sa.Engine,
        storage: Storage,
        settings: RetentionSettings,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._database = database
        self._storage = storage
        self._age_s = settings.scratch_s
        self._clock = clock
        self._looked_through_at = -float("inf")

    def sweep(self) -> int:
        """One round; returns how many files were removed."""
        removed = self._remove_checkpoints()
        if self._clock() - self._looked_through_at >= self._age_s:
            self._looked_through_at = self._clock()
            removed += self._storage.scratch.sweep_parts(older_than_s=self._age_s) + sum(
                map(self._remove_unnamed, _AREAS)
            )
        return removed

    def _remove_checkpoints(self) -> int:
        """Of requests that are over. A generator that writes one more time does so for the next round."""
        with_checkpoint = self._storage.scratch.checkpoints()
        still_open = sa.select(_row.id).where(_row.id.in_(with_checkpoint), _row.status != Status.COMPLETED)
        over = set(with_checkpoint)
        if over:
            with self._database.connect() as connection:
                over -= set(connection.execute(still_open).scalars())
        for request_id in over:
            self._storage.scratch.forget_checkpoint(request_id)
        return len(over)

    def _remove_unnamed(self, area: str) -> int:
        """Files that no row names: their process ended between storing the file and writing the row, or after it."""
        removed, keys = 0, self._storage.stored(area, older_than_s=self._age_s)
        while batch := list(islice(keys, _BATCH)):
            for key in set(batch) - self._named(batch):
                removed += self._storage.discard(key)
        return removed

    def _named(self, keys: Sequence[str]) -> set[str]:
        """Which of these belong to a request. A video that its request has not ended with belongs to none."""
        ids = {key.rpartition("/")[2].partition(".")[0] for key in keys}
        video = sa.case((sa.or_(_row.status != Status.COMPLETED, _row.response_status == _SUCCESS), _row.video_key))
        publishing = sa.case((_row.status != Status.COMPLETED, _row.video_key))
        query = sa.select(publishing, _row.source_key, _row.image_key, video, _row.thumbnail_key).where(
            _row.id.in_(ids)
        )
        with self._database.connect() as connection:
            rows = connection.execute(query).all()
        coming = {thumbnail_of(row[0]) for row in rows if row[0] is not None}
        return coming | {key for row in rows for key in row if key is not None}
