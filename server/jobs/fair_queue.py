"""The queue for the GPU: its limits, and the order of its jobs.

Owners take turns. A job's turn is one after the last turn that its owner has in the queue (or on the GPU), but never
before the turn that is being served: another owner's hundred jobs delay a first job by the one that is rendering, and
turns do not add up while an owner is away. The queue order is `turn * 1000 + arrival within the turn`, fixed at
submit: positions are a permutation at every moment, and a position never gets worse by more than one job per other
owner and turn.
"""

from dataclasses import dataclass

import sqlalchemy as sa

from server.db.tables import literal, request_table
from server.errors import QueueTooLong, TooManyRequests
from server.fal.submit_headers import Priority
from server.jobs.job import LOCAL_OWNER, Status

_JOBS_PER_TURN = 1000
_RETRY_AFTER_S = 5.0  # fal's clients retry a 429 for about a minute

_waiting = request_table.c.status == literal(Status.IN_QUEUE)
_rendering = request_table.c.status == literal(Status.IN_PROGRESS)


@dataclass(frozen=True, slots=True)
class Caps:
    """How many requests may wait. For the owner of the machine itself the total alone counts."""

    total: int
    per_owner: int


def enforce_caps(
    transaction: sa.Connection, owner: str, caps: Caps | None, max_queue_length: int | None = None
) -> None:
    """Refuse the job that was just inserted if the queue is too long with it: the insert holds the write lock.

    `max_queue_length` is the sender's own limit: how many others may wait.

    Raises:
        TooManyRequests: to be raised out of the transaction, which undoes the insert.
    """
    if caps is None and max_queue_length is None:
        return
    mine = sa.func.count(sa.case((request_table.c.owner == owner, 1)))
    total, own = transaction.execute(sa.select(sa.func.count(), mine).where(_waiting)).one()
    if max_queue_length is not None and total - 1 > max_queue_length:
        raise QueueTooLong
    if caps is None:
        return
    if total > caps.total:
        raise TooManyRequests(f"The queue is full: {caps.total} requests are waiting", retry_after_s=_RETRY_AFTER_S)
    if owner != LOCAL_OWNER and own > caps.per_owner:
        raise TooManyRequests(f"{caps.per_owner} of your requests are waiting already", retry_after_s=_RETRY_AFTER_S)


def next_queue_order(transaction: sa.Connection, owner: str, priority: Priority) -> int:
    """The queue order of a new job; starts at 1, because DBOS takes 0 for "before everything"."""
    same, order = request_table.c.priority == priority, request_table.c.queue_order
    placed = order > 0
    # The few that have left the queue and keep their places; all others are found by an index each.
    rendering = transaction.execute(sa.select(order, request_table.c.owner).where(_rendering, same, placed)).all()

    def of_waiting(found: sa.Function[int], *conditions: sa.ColumnElement[bool]) -> int:
        return transaction.execute(sa.select(found).where(_waiting, same, placed, *conditions)).scalar() or 0

    served = max((place for place, _ in rendering), default=0) or of_waiting(sa.func.min(order))
    own = max([place for place, of in rendering if of == owner], default=0)
    own = max(own, of_waiting(sa.func.max(order), request_table.c.owner == owner))
    turn = served // _JOBS_PER_TURN
    if own:
        turn = max(turn, own // _JOBS_PER_TURN + 1)
    first, beyond = turn * _JOBS_PER_TURN, (turn + 1) * _JOBS_PER_TURN
    taken = max((place for place, _ in rendering if first <= place < beyond), default=first)
    return max(taken, of_waiting(sa.func.max(order), order >= first, order < beyond)) + 1


def queue_position(connection: sa.Connection, priority: Priority, queue_order: int) -> int:
    """How many waiting jobs come before the one with this priority and queue order."""
    before = sa.tuple_(request_table.c.priority, request_table.c.queue_order) < (priority, queue_order)
    return connection.execute(sa.select(sa.func.count()).where(_waiting, before)).scalar_one()
