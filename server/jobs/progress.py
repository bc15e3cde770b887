"""How far a running job is: one row, written by its worker about once a second and read by those who watch.

The row belongs to an attempt. It is gone when the job ends or waits again, in the same transaction; a write that comes
later changes nothing.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, TypeAlias

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from server.db.tables import progress_table, request_table
from server.jobs.job import Job, Status
from server.jobs.status_reads import STATE_COLUMNS, JobState, Rows

Stage: TypeAlias = Literal["prepare", "expand", "encode", "denoise", "decode", "publish"]

_row, _request = progress_table.c, request_table.c
# Versions of an attempt's pictures begin here: a watcher never takes a picture for one of the attempt before.
_VERSIONS: Final = 10_000

_READ: Final = f"""SELECT {STATE_COLUMNS},
        r.image_key IS NOT NULL, r.video_key IS NOT NULL, p.stage, p.done, p.total, p.seconds_left, p.preview_version
    FROM request r LEFT JOIN progress p ON p.request_id = r.id WHERE r.id = :id AND r.owner = :owner"""  # noqa: S608 - of constants only
_PREVIEW: Final = """SELECT p.preview FROM progress p JOIN request r ON r.id = p.request_id
    WHERE r.id = :id AND r.owner = :owner AND r.status = 'IN_PROGRESS'"""


@dataclass(frozen=True, slots=True)
class Progress:
    """`done` of `total` blocks, tiles or tokens of a stage; `preview` is the version of the picture that is there.

    `stage` is None where nothing is done for the job: it waits for the GPU, or is over.
    """

    stage: Stage | None
    done: int = 0
    total: int = 0
    seconds_left: float | None = None
    preview: int | None = None


def version_before(job: Job) -> int:
    """The first picture of this attempt is the next one: none is taken for one of an earlier attempt."""
    return job.attempt * _VERSIONS


def forget_progress(transaction: sa.Connection, request_ids: Sequence[str]) -> None:
    """In the transaction after which nothing is being made for these jobs."""
    transaction.execute(progress_table.delete().where(_row.request_id.in_(request_ids)))


class ProgressTable:
    """The write side. `clock` gives Unix seconds."""

    def __init__(self, database: sa.Engine, clock: Callable[[], float] = time.time) -> None:
        self._database = database
        self._clock = clock
        self._write = _upsert(database.dialect.name)

    def write(self, job: Job, progress: Progress, picture: bytes | None = None) -> None:
        """Replace the row of a job that this attempt still renders; without a picture the one before stays."""
        values = {
            "of_job": job.id,
            "of_attempt": job.attempt,
            "new_stage": progress.stage,
            "new_done": progress.done,
            "new_total": progress.total,
            "new_seconds_left": progress.seconds_left,
            "new_preview": picture,
            "new_preview_version": progress.preview or 0,
            "new_at": self._clock(),
        }
        with self._database.begin() as transaction:
            transaction.execute(self._write, values)


class ProgressReads:
    """The read side, in the event loop: `rows` are those of the status."""

    def __init__(self, rows: Rows) -> None:
        self._rows = rows

    async def of(self, request_id: str, *, owner: str) -> tuple[JobState, Progress] | None:
        """A job of this owner and how far it is."""
        found = await self._rows(_READ, {"id": request_id, "owner": owner})
        if not found:
            return None
        state = JobState.of(found[0])
        prepared, rendered, stage, done, total, seconds_left, version = found[0][8:]
        if state.status is Status.IN_QUEUE:
            return state, Progress(None if prepared else "prepare")
        if state.status is Status.COMPLETED or (stage is None and not rendered):
            return state, Progress(None)
        if rendered:
            return state, Progress("publish", preview=version or None)
        return state, Progress(stage, done, total, seconds_left, version or None)

    async def preview(self, request_id: str, *, owner: str) -> bytes | None:
        """The latest picture of a running job of this owner."""
        found = await self._rows(_PREVIEW, {"id": request_id, "owner": owner})
        return found[0][0] if found else None


def _upsert(dialect: str) -> sa.Executable:
    """One statement that writes only while the attempt renders.

    On Postgres the lock on the job's row, which its end changes, keeps a write from coming between the end and its
    commit; SQLite has one writer at a time.
    """
    types: dict[str, Any] = {column.name: column.type for column in progress_table.c if column.name != "request_id"}
    new = [sa.bindparam(f"new_{name}", type_=kind) for name, kind in types.items()]
    mine = (
        sa.select(_request.id, *new)
        .where(
            _request.id == sa.bindparam("of_job"),
            _request.attempt == sa.bindparam("of_attempt"),
            _request.status == Status.IN_PROGRESS,
        )
        .with_for_update(read=True)
    )
    columns = ["request_id", *types]
    if dialect == "sqlite":
        inserting: Any = sqlite.insert(progress_table).from_select(columns, mine)
    else:
        inserting = postgresql.insert(progress_table).from_select(columns, mine)
    fresh = inserting.excluded
    changed = {name: fresh[name] for name in types} | {
        "preview": sa.func.coalesce(fresh.preview, _row.preview),
        "preview_version": sa.case((fresh.preview.is_(None), _row.preview_version), else_=fresh.preview_version),
    }
    upsert: sa.Executable = inserting.on_conflict_do_update(index_elements=[_row.request_id], set_=changed)
    return upsert
