"""The `webhook` table: which results are still to be delivered. A job's end adds them (`jobs/completion.py`)."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from server.db.tables import request_table, webhook_table
from server.db.waiting_work import NOW
from server.errors import NotFound
from server.jobs.completion import PENDING
from server.webhooks.shares import NOT_BUSY, Busy


@dataclass(frozen=True, slots=True)
class Webhook:
    """One delivery; `attempts` have been made, `outcome` says how the last one ended.

    `owner` is the request's, None when that has been deleted.
    """

    request_id: str
    url: str
    state: str
    attempts: int
    next_at: float
    leased_until: float
    outcome: str
    owner: str | None


_webhook, _request = webhook_table.c, request_table.c
_select: sa.Select[Any] = sa.select(
    *(_webhook[name] for name in Webhook.__slots__ if name != "owner"), _request.owner
).select_from(webhook_table.outerjoin(request_table, _request.id == _webhook.request_id))


def some_due() -> sa.Select[Any]:
    """Finds a row if a delivery is to be made now, but not one that a clock put back has left in the future."""
    return sa.select(sa.literal(1)).where(_webhook.state == PENDING, _webhook.next_at <= NOW)


class WebhookOutbox:
    """Claims are leases: when a worker dies with one, another takes the delivery over when it ends. At least once.

    A time further ahead than any that is ever set was written before the clock was put back: it counts as past.
    """

    def __init__(
        self, database: sa.Engine, clock: Callable[[], float] = time.time, *, longest_delay_s: float = float("inf")
    ) -> None:
        self._database = database
        self._clock = clock
        self._longest_delay_s = longest_delay_s

    def claim(self, limit: int, *, first_lease_s: float, lease_s: float, busy: Busy = NOT_BUSY) -> list[Webhook]:
        """Claim deliveries that are due and not claimed, and for which their owner has a share left.

        The first attempt has a lease of its own.
        """
        now = self._clock()
        free = (
            _webhook.state == PENDING,
            sa.or_(_webhook.next_at <= now, _webhook.next_at > now + self._longest_delay_s),
            sa.or_(_webhook.leased_until <= now, _webhook.leased_until > now + max(first_lease_s, lease_s)),
        )
        eligible = (*free, *_not_busy(busy))
        due = sa.select(_webhook.request_id).where(*eligible).order_by(_webhook.next_at).limit(limit)
        claiming = (
            webhook_table.update()
            .where(_webhook.request_id.in_(due), *free)  # again: another worker may have been faster
            .values(leased_until=sa.case((_webhook.attempts == 0, now + first_lease_s), else_=now + lease_s))
            .returning(_webhook.request_id)
        )
        if limit <= 0 or not self._any(eligible):
            return []
        with self._database.begin() as transaction:
            claimed = list(transaction.execute(claiming).scalars())
            return [Webhook(*row) for row in transaction.execute(_select.where(_webhook.request_id.in_(claimed)))]

    def settle(self, webhook: Webhook, state: str, outcome: str) -> None:
        """It is over: delivered or failed."""
        self._after(webhook, state=state, outcome=outcome)

    def postpone(self, webhook: Webhook, delay_s: float, outcome: str) -> None:
        """Try again after a while."""
        self._after(webhook, next_at=self._clock() + delay_s, outcome=outcome)

    def redeliver(self, request_id: str) -> None:
        """Start over, whatever has happened.

        Raises:
            NotFound: the request had no webhook.
        """
        again = webhook_table.update().where(webhook_table.c.request_id == request_id)
        fresh = {"state": PENDING, "attempts": 0, "next_at": self._clock(), "leased_until": 0.0}
        with self._database.begin() as transaction:
            if not transaction.execute(again.values(**fresh)).rowcount:
                raise NotFound(f"{request_id}: no such request with a webhook")

    def all(self, *, state: str | None = None) -> Sequence[Webhook]:
        """Deliveries, the latest first."""
        query = _select.order_by(_webhook.next_at.desc())
        if state is not None:
            query = query.where(_webhook.state == state)
        with self._database.connect() as connection:
            return [Webhook(*row) for row in connection.execute(query)]

    def _any(self, conditions: Sequence[sa.ColumnElement[bool]]) -> bool:
        """A read without a write lock: this is asked twice a second."""
        with self._database.connect() as connection:
            return connection.execute(sa.select(1).where(*conditions).limit(1)).first() is not None

    def _after(self, webhook: Webhook, **values: object) -> None:
        mine = webhook_table.update().where(  # not if it was redelivered or taken over meanwhile
            _webhook.request_id == webhook.request_id,
            _webhook.attempts == webhook.attempts,
            _webhook.leased_until == webhook.leased_until,
        )
        with self._database.begin() as transaction:
            transaction.execute(mine.values(attempts=webhook.attempts + 1, leased_until=0.0, **values))


def _not_busy(busy: Busy) -> list[sa.ColumnElement[bool]]:
    mine = sa.exists().where(_request.id == _webhook.request_id)
    owners = [mine.where(_request.owner.in_(busy.owners))] if busy.owners else []
    origins = [
        mine.where(_request.owner == owner, _webhook.url.startswith(origin, autoescape=True))
        for owner, origin in busy.origins
    ]
    return [~condition for condition in owners + origins]
