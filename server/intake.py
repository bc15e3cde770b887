"""From the bytes of a POST to an accepted job. The queue and the sync run share this path."""

import secrets
import uuid
from dataclasses import dataclass

from dbos import DBOSClient

from server.data_uri import PREFIX, decode_data_uri
from server.errors import ErrorResponse, ModelError
from server.job import NewJob, Priority
from server.job_store import JobStore
from server.schemas import HunyuanCustomInput, parse_json_object, validate_input
from server.settings import ImageSettings
from server.storage import LocalStorage


@dataclass(frozen=True, slots=True)
class Submission:
    """A request's body, and what its headers and URL said."""

    body: bytes
    owner: str
    base_url: str
    priority: Priority = Priority.NORMAL
    start_deadline: float | None = None


@dataclass(frozen=True, slots=True)
class Accepted:
    """The new job's id; `refused` is its result when it was over before it began."""

    request_id: str
    refused: ErrorResponse | None = None


class Intake:
    """Validates, stores the image that came along, and writes the job."""

    def __init__(self, store: JobStore, storage: LocalStorage, engine: DBOSClient, image: ImageSettings) -> None:
        self._store = store
        self._storage = storage
        self._engine = engine
        self._image = image

    def accept(self, submission: Submission) -> Accepted:
        """Write the job in one transaction.

        An invalid body becomes a finished job with the 422 as its result, as on fal (decision 6).

        Raises:
            InvalidInput: the body is no JSON object; nothing is written.
        """
        request_id = str(uuid.uuid4())
        fields = parse_json_object(submission.body)
        try:
            body, source_key = self._detach_image(request_id, validate_input(fields))
        except ModelError as error:
            refused = error.response()
            self._store.add_finished(_new_job(request_id, submission, None, None), refused)
            return Accepted(request_id, refused)
        self._store.add(_new_job(request_id, submission, body, source_key), self._engine)
        return Accepted(request_id)

    def _detach_image(self, request_id: str, body: HunyuanCustomInput) -> tuple[HunyuanCustomInput, str | None]:
        """Put a data: URI into storage (decision 8), so that rows stay small."""
        if not body.image_url.lower().startswith(PREFIX):
            return body, None
        content = decode_data_uri(body.image_url, max_bytes=self._image.max_bytes)
        key = self._storage.new_key("inputs", request_id)
        self._storage.put_bytes(content, key)
        return body.model_copy(update={"image_url": PREFIX}), key


def _new_job(
    request_id: str, submission: Submission, body: HunyuanCustomInput | None, source_key: str | None
) -> NewJob:
    seed = body.seed if body and body.seed is not None else secrets.randbelow(2**32)
    return NewJob(
        id=request_id,
        owner=submission.owner,
        input=body,
        seed=seed,
        priority=submission.priority,
        base_url=submission.base_url,
        source_key=source_key,
        start_deadline=submission.start_deadline,
    )
