"""From the bytes of a POST to an accepted job. The queue and the sync run share this path."""

import logging
import secrets
import time
import uuid
from dataclasses import dataclass

from sqlalchemy.exc import IntegrityError

from server.db.outage import is_outage, one_line
from server.errors import InsufficientStorage, ModelError
from server.fal.data_uri import PREFIX, decode_data_uri, is_data_uri
from server.fal.schemas import HunyuanCustomInput, parse_json_object, validate_input
from server.fal.submit_headers import SubmitOptions
from server.fal.value_count import refuse_many_values
from server.jobs.job import Accepted, NewJob
from server.jobs.job_store import JobStore
from server.logs import name_request
from server.settings import Settings
from server.storage.files import Storage
from server.tracing.spans import ERROR_TYPE, current_span
from server.untrusted.words import refuse_words

logger = logging.getLogger(__name__)

_RANDOM_SEEDS = (None, -1)  # -1 is how other tools spell it


@dataclass(frozen=True, slots=True)
class Submission:
    """A request's body, and what its headers and URL said."""

    body: bytearray
    owner: str
    base_url: str
    options: SubmitOptions
    webhook_url: str | None = None
    max_queue_length: int | None = None


class Intake:
    """Validates, stores the image that came along, and writes the job."""

    def __init__(self, store: JobStore, storage: Storage, settings: Settings) -> None:
        self._store = store
        self._storage = storage
        self._image = settings.image
        self._safety = settings.safety
        self._min_free_bytes = settings.jobs.min_free_bytes

    def accept(self, submission: Submission) -> Accepted:
        """Write the job in one transaction; a repeated idempotency key leads to the job it made first.

        An invalid body becomes a finished job with the 422 as its result, as on fal; so does one whose prompt the word
        list refuses.

        Raises:
            InvalidInput: the body is no JSON object; nothing is written.
            BodyTooLarge: it holds too many values.
            InsufficientStorage: the disk is too full for another video.
            TooManyRequests: the queue is as long as the limits allow, or longer than the sender accepts.
        """
        known = self._known(submission)
        if known is not None:
            return known
        if self._storage.scratch.free_bytes() < self._min_free_bytes:
            raise InsufficientStorage
        request_id = str(uuid.uuid4())
        name_request(request_id)
        refuse_many_values(submission.body)
        fields = parse_json_object(submission.body)  # which empties it
        body, source_key, refused = None, None, None
        try:
            valid = validate_input(fields)
            refuse_words(request_id, valid, self._safety)
            body, source_key = self._detach_image(request_id, valid)
        except ModelError as error:
            refused = error.response()
            current_span().note({ERROR_TYPE: refused.error_type})
        job = _new_job(request_id, submission, body, source_key)
        try:
            if refused is not None:
                return self._store.add_finished(job, refused)
            return self._store.add(job, max_queue_length=submission.max_queue_length)
        except Exception as error:
            self._forget_image(job)
            known = self._known(submission) if isinstance(error, IntegrityError) else None
            if known is None:
                raise
            return known  # another submit with the same key was faster

    def _forget_image(self, job: NewJob) -> None:
        """Of a job that was not written, unless only the answer was lost: so this asks. A sweep does the rest."""
        if job.source_key is None:
            return
        try:
            if self._store.get(job.id) is None:
                self._storage.discard(job.source_key)
        except Exception as error:
            if is_outage(error):  # it shows elsewhere
                return
            logger.warning("the image of request %s may be left over: %s", job.id, one_line(error))

    def _known(self, submission: Submission) -> Accepted | None:
        key = submission.options.idempotency_key
        return None if key is None else self._store.accepted_before(submission.owner, key)

    def _detach_image(self, request_id: str, body: HunyuanCustomInput) -> tuple[HunyuanCustomInput, str | None]:
        """Put a data: URI into storage, so that rows stay small."""
        if not is_data_uri(body.image_url):
            return body, None
        content = decode_data_uri(body.image_url, max_bytes=self._image.max_bytes)
        key = self._storage.new_key("inputs", request_id)
        self._storage.put_bytes(content, key)
        return body.model_copy(update={"image_url": PREFIX}), key


def _new_job(
    request_id: str, submission: Submission, body: HunyuanCustomInput | None, source_key: str | None
) -> NewJob:
    seed = body.seed if body and body.seed not in _RANDOM_SEEDS else secrets.randbelow(2**32)
    options = submission.options
    timeout = options.start_timeout_s
    return NewJob(
        id=request_id,
        owner=submission.owner,
        input=body,
        seed=seed,
        priority=options.priority,
        base_url=submission.base_url,
        source_key=source_key,
        webhook_url=submission.webhook_url,
        start_deadline=None if timeout is None else time.time() + timeout,
        no_retry=options.no_retry,
        store_io=options.store_io,
        media_ttl_s=options.media_ttl_s,
        idempotency_key=options.idempotency_key,
        traceparent=current_span().traceparent,
    )
