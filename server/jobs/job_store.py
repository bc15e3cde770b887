"""The life of a job in SQL: the only record of it, and the only way to change it while it is open.

Every method is one transaction. Writes of a worker are fenced: they name the attempt they belong to and change
nothing once another attempt has started or the job is terminal.
"""

import json
import time
from collections.abc import Callable, Sequence
from typing import Any

import sqlalchemy as sa
from dbos import DBOSClient

from server.db.locks import lock_queue
from server.db.tables import literal, log_table, request_table
from server.errors import ErrorResponse, ServerError
from server.fal.submit_headers import Priority
from server.jobs.completion import record_end
from server.jobs.dbos_queues import enqueue_prepare, enqueue_publish, enqueue_render, enqueue_render_again
from server.jobs.fair_queue import Caps, enforce_caps, next_queue_order, queue_position
from server.jobs.job import NO_INPUT, Accepted, CancelOutcome, Job, LogLine, NewJob, Rendered, Status
from server.jobs.outcomes import CANCELLED, START_TIMEOUT
from server.jobs.progress import forget_progress
from server.jobs.worker_registry import may_claim

_SUCCESS = 200
job_columns = [request_table.c[name] for name in Job.__slots__]
# X-Fal-Store-IO: 0 asks that the input is forgotten when the job ends; its result stays.
_kept_input = sa.case((request_table.c.store_io, request_table.c.input_json), else_=NO_INPUT)


class WorkerDrains(ServerError):
    """The worker has been asked to take no more jobs."""


class JobStore:
    """Jobs in SQL, and the workflows that they are handed to. `clock` gives Unix seconds."""

    def __init__(
        self,
        database: sa.Engine,
        dbos: DBOSClient,
        clock: Callable[[], float] = time.time,
        *,
        caps: Caps | None = None,
    ) -> None:
        self._database = database
        self._dbos = dbos
        self._clock = clock
        self._caps = caps

    def add(self, job: NewJob, *, max_queue_length: int | None = None) -> Accepted:
        """Accept a valid request: its row and its workflow appear together or not at all.

        Raises:
            TooManyRequests: the queue is as long as the caps allow; nothing is written.
        """
        with self._database.begin() as transaction:
            lock_queue(transaction)  # two submits must not see the same end of the queue
            transaction.execute(request_table.insert().values(**self._new_row(job), status=Status.IN_QUEUE))
            enforce_caps(transaction, job.owner, self._caps, max_queue_length)
            order = next_queue_order(transaction, job.owner, job.priority)
            transaction.execute(_update(job.id).values(queue_order=order))
            enqueue_prepare(self._dbos, transaction, job.id)
            return Accepted(job.id, job.base_url, queue_position(transaction, job.priority, order))

    def add_finished(self, job: NewJob, error: ErrorResponse) -> Accepted:
        """Accept a request that is over already (an invalid body): it has an id and a result, and never runs."""
        with self._database.begin() as transaction:
            row = {**self._new_row(job), **self._error_values(error), "status": Status.COMPLETED}
            added = transaction.execute(request_table.insert().values(**row).returning(*job_columns)).one()
            record_end(transaction, job_of(added))
        return Accepted(job.id, job.base_url, 0, error)

    def accepted_before(self, owner: str, idempotency_key: str) -> Accepted | None:
        """The request that this owner made with that Idempotency-Key."""
        row = request_table.c
        query = sa.select(row.id, row.base_url, row.status, row.priority, row.queue_order).where(
            row.owner == owner, row.idempotency_key == idempotency_key
        )
        with self._database.connect() as connection:
            found = connection.execute(query).one_or_none()
            if found is None:
                return None
            waits = found.status == Status.IN_QUEUE
            position = queue_position(connection, found.priority, found.queue_order) if waits else 0
        return Accepted(found.id, found.base_url, position)

    def _new_row(self, job: NewJob) -> dict[str, Any]:
        return {
            "id": job.id,
            "owner": job.owner,
            "priority": job.priority,
            "input_json": job.input.model_dump_json() if job.input else NO_INPUT,
            "seed": str(job.seed),
            "base_url": job.base_url,
            "source_key": job.source_key,
            "webhook_url": job.webhook_url,
            "start_deadline": job.start_deadline,
            "no_retry": job.no_retry,
            "store_io": job.store_io,
            "media_ttl_s": job.media_ttl_s,
            "idempotency_key": job.idempotency_key,
            "traceparent": job.traceparent,
            "created_at": self._clock(),
        }

    def get(self, request_id: str, *, owner: str | None = None) -> Job | None:
        """The job, or None when there is none of that id (for that owner)."""
        query = sa.select(*job_columns).where(request_table.c.id == request_id)
        if owner is not None:
            query = query.where(request_table.c.owner == owner)
        with self._database.connect() as connection:
            row = connection.execute(query).one_or_none()
        return None if row is None else job_of(row)

    def logs(self, request_id: str, *, after: int = 0) -> list[LogLine]:
        """The log of a job in order, optionally only the lines after a given line id."""
        query = (
            sa.select(log_table.c.id, log_table.c.message, log_table.c.level, log_table.c.at)
            .where(log_table.c.request_id == request_id, log_table.c.id > after)
            .order_by(log_table.c.id)
        )
        with self._database.connect() as connection:
            return [LogLine(*row) for row in connection.execute(query)]

    def open_jobs(self, *, older_than_s: float) -> list[Job]:
        """Jobs that are not over and were submitted at least so long ago."""
        query = sa.select(*job_columns).where(
            request_table.c.finished_at.is_(None), request_table.c.created_at <= self._clock() - older_than_s
        )
        with self._database.connect() as connection:
            return [job_of(row) for row in connection.execute(query)]

    def is_over(self, request_id: str) -> bool:
        """Whether a job has its result, or had it and is deleted."""
        query = sa.select(request_table.c.status).where(request_table.c.id == request_id)
        with self._database.connect() as connection:
            return connection.execute(query).scalar_one_or_none() in {None, Status.COMPLETED}

    def is_unwanted(self, job: Job) -> bool:
        """Whether an attempt's result is of no use any more: the user cancelled, or the job went on without it."""
        wanted = sa.select(1).where(
            *_owned_by(job), request_table.c.status != Status.COMPLETED, request_table.c.cancel_requested.is_(False)
        )
        with self._database.connect() as connection:
            return connection.execute(wanted).first() is None

    def log(self, job: Job, messages: Sequence[tuple[str, str]]) -> None:
        """Append (level, message) lines to the log of a job that is still this attempt's."""
        line = sa.select(
            sa.literal(job.id),
            sa.bindparam("level", type_=sa.Text),
            sa.bindparam("message", type_=sa.Text),
            sa.literal(self._clock(), sa.Double),
        ).where(sa.exists().where(*_owned_by(job), request_table.c.status != Status.COMPLETED))
        appending = log_table.insert().from_select(["request_id", "level", "message", "at"], line)
        if messages:
            with self._database.begin() as transaction:
                transaction.execute(appending, [{"level": level, "message": text} for level, text in messages])

    def prepared(self, job: Job, image_key: str) -> str | None:
        """Remember where the checked identity image is and queue the job for the GPU, both or neither.

        Returns the key that counts: the first one. None: the job is over.
        """
        waiting = _update(job.id).where(request_table.c.status != Status.COMPLETED)
        keeping = waiting.values(image_key=sa.func.coalesce(request_table.c.image_key, image_key))
        with self._database.begin() as transaction:
            kept = transaction.execute(keeping.returning(request_table.c.image_key)).scalar_one_or_none()
            if kept is not None:
                enqueue_render(self._dbos, transaction, job)
        return kept

    def claim(self, request_id: str, worker_id: str, *, attempt: int | None = None) -> Job | None:
        """Start an attempt, the one after `attempt` if that is given.

        None: the job is over, or unknown, or rendered already, or another attempt was faster. One that was cancelled
        while it had no worker ends here.

        Raises:
            WorkerDrains: nothing is changed.
        """
        before = request_table.c.attempt
        again = sa.and_(before == (attempt or 0) + 1, request_table.c.worker_id == worker_id)  # its answer was lost
        fence = [] if attempt is None else [sa.or_(before == attempt, again)]
        running = request_table.c.status == Status.IN_PROGRESS
        lost = sa.case((running if attempt is None else sa.and_(running, sa.not_(again)), 1), else_=0)
        starting = (
            _update(request_id)
            .where(request_table.c.status != Status.COMPLETED, request_table.c.video_key.is_(None), *fence)
            .values(
                status=Status.IN_PROGRESS,
                attempt=request_table.c.attempt + 1,
                faults=request_table.c.faults + lost,
                worker_id=worker_id,
                started_at=sa.func.coalesce(request_table.c.started_at, self._clock()),
            )
            .returning(*job_columns, request_table.c.cancel_requested)
        )
        with self._database.begin() as transaction:
            row = transaction.execute(starting).one_or_none()
            if row is None:
                return None
            if row.attempt > 1:
                forget_progress(transaction, [request_id])  # of an attempt whose worker was lost
            if row.cancel_requested:
                _end(transaction, _update(request_id).values(**self._error_values(CANCELLED)))
                return None
            is_repeated = attempt is not None and row.attempt > attempt + 1  # the job is this worker's already
            if not is_repeated and not may_claim(transaction, worker_id):
                raise WorkerDrains(worker_id)
        return job_of(row)

    def release(self, job: Job, *, fault: bool = False) -> bool:
        """Give a running job back: it waits where it waited before. One that is cancelled ends instead.

        False: it does not wait, or not because of this call.
        """
        running = _update(job.id).where(
            *_owned_by(job), request_table.c.status == Status.IN_PROGRESS, request_table.c.video_key.is_(None)
        )
        cancelled = request_table.c.cancel_requested
        back = {"status": Status.IN_QUEUE, "worker_id": None, "faults": request_table.c.faults + int(fault)}
        with self._database.begin() as transaction:
            released = transaction.execute(running.where(cancelled.is_(False)).values(**back)).rowcount
            if released:
                forget_progress(transaction, [job.id])
            else:
                over = self._error_values(CANCELLED)
                _end(transaction, running.where(cancelled.is_(True)).values(**over))
        return bool(released)

    def rendered(self, job: Job, rendered: Rendered) -> bool:
        """Note that this attempt has its video and hand that on to `publish`, both or neither; may be repeated.

        False: another attempt owns the job, or it is over.
        """
        key = request_table.c.video_key
        open_job = _update(job.id).where(
            *_owned_by(job),
            request_table.c.status == Status.IN_PROGRESS,
            sa.or_(key.is_(None), key == rendered.video_key),
        )
        with self._database.begin() as transaction:
            mine = bool(transaction.execute(open_job.values(video_key=rendered.video_key)).rowcount)
            if mine:
                enqueue_publish(self._dbos, transaction, job, rendered)
        return mine

    def render_again(self, job: Job) -> None:
        """The video of this attempt is lost: the job waits for the GPU again, as a fault of its worker."""
        losing = _update(job.id).where(*_owned_by(job), request_table.c.status != Status.COMPLETED)
        with self._database.begin() as transaction:
            if transaction.execute(losing.values(video_key=None)).rowcount:
                enqueue_render_again(self._dbos, transaction, job)

    def complete(self, job: Job, *, video_bytes: int, inference_time: float, thumbnail_key: str | None = None) -> bool:
        """Record success, or the cancel that came first; False: the video belongs to no job any more.

        May be repeated when its answer was lost.
        """
        finished = self._finish(
            job.id,
            *_owned_by(job),
            request_table.c.video_key == job.video_key,
            request_table.c.cancel_requested.is_(False),
            video_bytes=video_bytes,
            inference_time=inference_time,
            thumbnail_key=thumbnail_key,
            response_status=_SUCCESS,
        )
        return finished or (not self.finish_cancelled(job) and self._is_done_by(job))

    def _is_done_by(self, job: Job) -> bool:
        now = self.get(job.id)
        return now is not None and now.response_status == _SUCCESS and now.video_key == job.video_key

    def finish_cancelled(self, job: Job) -> bool:
        """End a running job whose cancel was asked for."""
        fence = (*_owned_by(job), request_table.c.cancel_requested.is_(True))
        return self._finish(job.id, *fence, **self._error_values(CANCELLED))

    def fail(self, request_id: str, error: ErrorResponse, *, attempt: int | None = None) -> bool:
        """Record a failure as the job's result; with an attempt, only if that attempt still owns the job."""
        fence = [] if attempt is None else [request_table.c.attempt == attempt]
        return self._finish(request_id, *fence, **self._error_values(error))

    def refuse(self, job: Job, error: ErrorResponse) -> bool:
        """Record that a job cannot be prepared, unless another try of that has succeeded."""
        fence = (*_owned_by(job), request_table.c.image_key.is_not_distinct_from(job.image_key))
        return self._finish(job.id, *fence, **self._error_values(error))

    def expire_overdue(self) -> int:
        """End waiting jobs whose start deadline has passed; returns how many."""
        overdue = (
            request_table.update()
            .where(
                request_table.c.status == literal(Status.IN_QUEUE),
                request_table.c.started_at.is_(None),  # one that a stopping worker gave back has started in time
                request_table.c.start_deadline < self._clock(),
            )
            .values(**self._error_values(START_TIMEOUT))
        )
        with self._database.begin() as transaction:
            return _end(transaction, overdue)

    def cancel(self, request_id: str) -> CancelOutcome:
        """Ask a job to stop. A waiting job is over at once, in the same transaction."""
        unfinished = _update(request_id).where(request_table.c.status != Status.COMPLETED)
        flag = unfinished.values(cancel_requested=True).returning(request_table.c.status)
        with self._database.begin() as transaction:
            status = transaction.execute(flag).scalar_one_or_none()  # from here on no other transaction changes it
            if status == Status.IN_PROGRESS:
                return CancelOutcome.WAS_RUNNING
            if status == Status.IN_QUEUE:
                _end(transaction, _update(request_id).values(**self._error_values(CANCELLED)))
                return CancelOutcome.WAS_QUEUED
        return CancelOutcome.ALREADY_COMPLETED

    def _finish(self, request_id: str, *conditions: sa.ColumnElement[bool], **values: Any) -> bool:
        """End a job that ran."""
        open_job = _update(request_id).where(request_table.c.status != Status.COMPLETED, *conditions)
        with self._database.begin() as transaction:
            return bool(_end(transaction, open_job.values(**{"finished_at": self._clock(), **values})))

    def _error_values(self, error: ErrorResponse) -> dict[str, Any]:
        return {
            "finished_at": self._clock(),
            "response_status": error.status,
            "response_json": json.dumps(error.body),
            "response_headers": json.dumps(error.headers),
            "error_type": error.error_type,
            "error": error.summary,
        }


def _update(request_id: str) -> sa.Update:
    return request_table.update().where(request_table.c.id == request_id)


def _owned_by(job: Job) -> tuple[sa.ColumnElement[bool], ...]:
    """The fence: true as long as no later attempt has begun."""
    return request_table.c.id == job.id, request_table.c.attempt == job.attempt


def _end(transaction: sa.Connection, closing: sa.Update) -> int:
    """The only way to COMPLETED: once or not at all, and with its usage record and webhook."""
    ended = transaction.execute(closing.values(status=Status.COMPLETED).returning(*job_columns)).all()
    for row in ended:
        record_end(transaction, job_of(row))
        transaction.execute(_update(row.id).values(input_json=_kept_input))
    forget_progress(transaction, [row.id for row in ended])
    return len(ended)


def job_of(row: Any) -> Job:
    """The record from `job_columns`."""
    values = {column.key: row._mapping[column] for column in job_columns}
    values.update(status=Status(row.status), priority=Priority(row.priority), seed=int(row.seed))
    return Job(**values)
