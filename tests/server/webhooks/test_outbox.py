"""Deliveries in the table: in one hand at a time, to addresses that are judged again, by shares."""

import time
from collections.abc import Iterator
from pathlib import Path

import httpcore
import pytest
import sqlalchemy as sa

from server.db.connection import create_engine
from server.db.migrations import migrate
from server.db.tables import webhook_table
from server.errors import INTERNAL_ERROR
from server.fal.submit_headers import Priority
from server.jobs.dbos_queues import dbos_client
from server.jobs.job import NewJob
from server.jobs.job_store import JobStore
from server.settings_loader import load_settings
from server.untrusted.addresses import OutboundPolicy
from server.untrusted.pinned_connections import PinnedBackend
from server.webhooks.outbox import WebhookOutbox
from server.webhooks.sender import WebhookSender
from server.webhooks.shares import Busy, Shares


@pytest.fixture
def outbox(tmp_path: Path) -> Iterator[tuple[sa.Engine, WebhookOutbox, list[float]]]:
    """A database with one finished request whose webhook is due, and the clock of its outbox."""
    settings = load_settings(None, {"data_dir": tmp_path})
    migrate(settings.database_url, tmp_path / "lock")
    database, now = create_engine(settings.database_url), [time.time()]
    job = NewJob(
        id="r", owner="o", input=None, seed=1, priority=Priority.NORMAL, base_url="", webhook_url="http://127.0.0.1:9/"
    )
    JobStore(database, dbos_client(database), clock=lambda: now[0]).add_finished(job, INTERNAL_ERROR)
    yield database, WebhookOutbox(database, clock=lambda: now[0]), now
    database.dispose()


def test_the_address_is_judged_again_when_it_is_called(
    outbox: tuple[sa.Engine, WebhookOutbox, list[float]], tmp_path: Path
) -> None:
    database, table, _ = outbox
    sender = WebhookSender(
        database, JobStore(database, dbos_client(database)), load_settings(None, {"data_dir": tmp_path})
    )
    (claimed,) = table.claim(5, first_lease_s=30, lease_s=100)
    sender.deliver(claimed)
    sender.stop()
    assert table.all()[0].state == "failed"
    assert table.all()[0].outcome == "refused: 127.0.0.1:9 leads to 127.0.0.1"


@pytest.mark.parametrize("address", ["10.0.0.1", "127.0.0.1", "169.254.169.254", "::1", "fd00::1"])
def test_the_address_of_a_name_is_judged_when_it_is_called(
    outbox: tuple[sa.Engine, WebhookOutbox, list[float]], tmp_path: Path, address: str
) -> None:
    database, table, _ = outbox
    with database.begin() as transaction:
        transaction.execute(webhook_table.update().values(url="http://internal.example/hook"))

    def connect(*_: object) -> httpcore.NetworkStream:
        raise AssertionError("nothing may be connected to")

    def backend(deadline: float) -> httpcore.NetworkBackend:
        answers = ["93.184.216.34", address]  # one bad answer is enough
        return PinnedBackend(
            OutboundPolicy(), connect_timeout_s=1, deadline=deadline, resolve=lambda *_: answers, connect=connect
        )

    sender = WebhookSender(
        database, JobStore(database, dbos_client(database)), load_settings(None, {"data_dir": tmp_path}), backend
    )
    (claimed,) = table.claim(5, first_lease_s=30, lease_s=100)
    sender.deliver(claimed)
    sender.stop()
    assert (table.all()[0].state, table.all()[0].outcome) == (
        "failed",
        f"refused: internal.example:80 leads to {address}",
    )


def test_a_delivery_is_in_one_hand_at_a_time(outbox: tuple[sa.Engine, WebhookOutbox, list[float]]) -> None:
    _, table, now = outbox
    (claimed,) = table.claim(5, first_lease_s=30, lease_s=100)
    assert not table.claim(5, first_lease_s=30, lease_s=100)
    now[0] += 31  # the worker that claimed it has died
    (again,) = table.claim(5, first_lease_s=30, lease_s=100)
    table.postpone(again, 10, "HTTP 500")
    table.settle(claimed, "delivered", "HTTP 200")  # the first was only slow: what it says comes too late
    assert (table.all()[0].state, table.all()[0].attempts) == ("pending", 1)
    assert not table.claim(5, first_lease_s=30, lease_s=100)
    now[0] += 11
    table.claim(5, first_lease_s=30, lease_s=100)
    now[0] += 31
    assert not table.claim(5, first_lease_s=30, lease_s=100), "later attempts may take longer"


def test_shares_are_counted_and_given_back() -> None:
    shares = Shares(per_owner=2, per_host=1)
    shares.begin("a", "https://x.example/1")
    assert shares.busy() == Busy((), (("a", "https://x.example"),))
    shares.begin("a", "https://y.example:8443/1?z")
    assert shares.busy() == Busy(("a",), (("a", "https://x.example"), ("a", "https://y.example:8443")))
    shares.end("a", "https://x.example/1")
    shares.end("a", "https://y.example:8443/1?z")
    assert shares.busy() == Busy()


def test_who_was_under_way_when_it_was_started_over_changes_nothing(
    outbox: tuple[sa.Engine, WebhookOutbox, list[float]],
) -> None:
    _, table, _ = outbox
    (claimed,) = table.claim(5, first_lease_s=30, lease_s=100)
    table.redeliver(claimed.request_id)
    table.settle(claimed, "failed", "HTTP 410")
    assert [(webhook.state, webhook.attempts) for webhook in table.all()] == [("pending", 0)]


def test_a_clock_that_is_put_back_delays_no_delivery(outbox: tuple[sa.Engine, WebhookOutbox, list[float]]) -> None:
    database, _, now = outbox
    table = WebhookOutbox(database, clock=lambda: now[0], longest_delay_s=60)
    assert table.claim(5, first_lease_s=30, lease_s=100)
    now[0] -= 3600
    (again,) = table.claim(5, first_lease_s=30, lease_s=100)
    assert not table.claim(5, first_lease_s=30, lease_s=100)
    table.postpone(again, 60, "HTTP 500")
    assert not table.claim(5, first_lease_s=30, lease_s=100)
    now[0] -= 3600
    assert table.claim(5, first_lease_s=30, lease_s=100)
