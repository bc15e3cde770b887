"""A job: one request from its acceptance to its result. States, and the record other modules pass around.

    IN_QUEUE ──claim──> IN_PROGRESS ──complete / fail──> COMPLETED
        │ <───release────────┘                              │
        └───────────── cancel, invalid, bad image ──────────┘

`COMPLETED` is terminal and says nothing about success: the stored response does (fal has no FAILED state).
Every claim raises `attempt`, and every write of a worker carries its attempt: one that was presumed dead changes
nothing when it wakes up. `faults` counts the attempts whose worker or generator was lost: a claim of a job that was
IN_PROGRESS is one, and so is a release after the generator died or fell silent, but not the release by a worker that
stops in order.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from server.errors import ErrorResponse
from server.fal.schemas import HunyuanCustomInput
from server.fal.submit_headers import Priority

LOCAL_OWNER: Final = "local"  # of all requests while there are no keys, then of the first key
_VIDEO: Final = ".mp4"
_THUMBNAIL: Final = ".webp"
NO_INPUT: Final = "null"  # `input_json` of an input that was not valid, or was to be forgotten at the end


class Status(StrEnum):
    """What fal's clients know; any other word makes the Python client raise."""

    IN_QUEUE = "IN_QUEUE"
    IN_PROGRESS = "IN_PROGRESS"
    COMPLETED = "COMPLETED"


class CancelOutcome(StrEnum):
    """What asking for a cancel did."""

    WAS_QUEUED = "was_queued"  # terminal now
    WAS_RUNNING = "was_running"  # the worker will see the flag
    ALREADY_COMPLETED = "already_completed"


@dataclass(frozen=True, slots=True)
class NewJob:
    """What submit knows.

    `input` is the validated body, or None for an invalid one, whose request is over at once.
    `source_key` is set when the image came with the request (a data: URI) and is stored already.
    """

    id: str
    owner: str
    input: HunyuanCustomInput | None
    seed: int
    priority: Priority
    base_url: str
    source_key: str | None = None
    start_deadline: float | None = None
    webhook_url: str | None = None
    no_retry: bool = False
    store_io: bool = True  # False: the input is blanked when the job is over
    media_ttl_s: float | None = None  # None: the server's own retention
    idempotency_key: str | None = None
    traceparent: str | None = None


@dataclass(frozen=True, slots=True)
class Accepted:
    """What the answer to a submit says; `refused` is the result of a request that was over at once."""

    request_id: str
    base_url: str
    queue_position: int
    refused: ErrorResponse | None = None


@dataclass(frozen=True, slots=True)
class Job:
    """One row of the `request` table. Times are Unix seconds.

    `source_key` is the image as it was sent, `image_key` the checked one. `video_key` is where the video of this
    attempt is or will be: a job in progress that has one is rendered, and its `publish` is under way. A finished video
    may have a thumbnail. With `media_deleted` the time of both is over.
    """

    id: str
    seq: int
    owner: str
    status: Status
    priority: Priority
    queue_order: int
    input_json: str
    seed: int
    base_url: str
    source_key: str | None
    image_key: str | None
    video_key: str | None
    video_bytes: int | None
    attempt: int
    faults: int
    worker_id: str | None
    cancel_requested: bool
    created_at: float
    started_at: float | None
    finished_at: float | None
    start_deadline: float | None
    no_retry: bool
    store_io: bool
    inference_time: float | None
    response_status: int | None
    response_json: str | None
    response_headers: str | None
    error_type: str | None
    error: str | None
    webhook_url: str | None
    media_deleted: bool
    thumbnail_key: str | None
    traceparent: str | None  # of the submit's span

    @property
    def input(self) -> HunyuanCustomInput:
        """The validated input."""
        return HunyuanCustomInput.model_validate_json(self.input_json)

    @property
    def input_or_none(self) -> HunyuanCustomInput | None:
        """The same of a job that may be over: None if it was not valid, or is forgotten."""
        return None if self.input_json == NO_INPUT else self.input

    @property
    def dbos_priority(self) -> int:
        """Priority and queue order (see `jobs/fair_queue.py`) as the one number that DBOS sorts its queue by."""
        return self.priority * 1_000_000_000 + self.queue_order


@dataclass(frozen=True, slots=True)
class Rendered:
    """What an attempt has made: a file on its worker's machine, and the key that it is to be stored under."""

    video_key: str
    path: str
    worker_id: str
    inference_time: float


def thumbnail_of(video_key: str) -> str:
    """The key of a video's thumbnail, if there is one: both have one folder, whose name nobody can guess."""
    return video_key.removesuffix(_VIDEO) + _THUMBNAIL


def video_of(key: str) -> str:
    """The key of a video from its own or its thumbnail's."""
    return key.removesuffix(_THUMBNAIL) + _VIDEO if key.endswith(_THUMBNAIL) else key


@dataclass(frozen=True, slots=True)
class LogLine:
    """One line of a job's log, as its user sees it."""

    id: int
    message: str
    level: str
    at: float
