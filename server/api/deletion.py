"""What deleting a request removes: everything that its owner could see of it. Its usage record stays.

Files come before the record, as where time removes them (`worker/expiry/retention.py`): a deletion that was interrupted
is simply repeated, and one that meets another does no harm. Since a request that is over never changes again, nothing
can follow: a webhook under way finds no row to come back to, a publisher that was frozen removes what it has put.
"""

import json

import sqlalchemy as sa
from dbos import DBOSClient

from server.errors import StillInProgress
from server.jobs.dbos_queues import forget_workflows
from server.jobs.job import NO_INPUT, Job, Status
from server.jobs.records import delete_records
from server.storage.files import Storage
from server.storage.own_urls import upload_key
from server.storage.uploads import Uploads


class Deletion:
    """Removes a request for its owner."""

    def __init__(self, database: sa.Engine, storage: Storage, uploads: Uploads, dbos: DBOSClient) -> None:
        self._database = database
        self._storage = storage
        self._uploads = uploads
        self._dbos = dbos

    def delete(self, job: Job) -> None:
        """Remove a request that is over; may be repeated.

        Raises:
            StillInProgress: it is not over.
            StorageAway, OSError: a file could not be removed; the record is still there.
        """
        if job.status is not Status.COMPLETED:
            raise StillInProgress
        for key in (job.thumbnail_key, job.video_key, job.image_key, job.source_key):
            if key is not None:
                self._storage.delete(key)
        forget_workflows(self._dbos, [job.id])
        with self._database.begin() as transaction:
            delete_records(transaction, [job.id])
        # Not validated: an earlier version may have taken more.
        uploaded = None if job.input_json == NO_INPUT else upload_key(json.loads(job.input_json)["image_url"])
        if uploaded is not None:
            self._uploads.delete_unused(job.owner, uploaded)
