"""DBOS in this process: silent while there is nothing to do, and quick when there is. A version of it that is built
differently fails here."""

import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from queue import SimpleQueue
from threading import Event
from typing import Any, Final

import pytest
import sqlalchemy as sa
from dbos import DBOS, DBOSClient, EnqueueOptions

from server.db.waiting_work import WaitingWork
from server.jobs.dbos_polling import poll_only_for_work
from server.jobs.dbos_queues import APPLICATION_VERSION, dbos_client, dbos_config, register_queues, some_enqueued
from tests.harness.live_server import until

POLL_S: Final = 0.05
QUIET_S: Final = 1.0
SOON_S: Final = 8.0  # on a busy machine; without a wake it takes ten
QUEUES: Final = {"first": 1, "second": 4}


@dataclass(frozen=True)
class Engine:
    client: DBOSClient
    statements: Counter[str]
    ran: SimpleQueue[str] = field(default_factory=SimpleQueue)
    may_end: Event = field(default_factory=Event)

    def enqueue(self, queue: str, word: str) -> None:
        options: EnqueueOptions = {"queue_name": queue, "workflow_name": "echo", "app_version": APPLICATION_VERSION}
        self.client.enqueue(options, word)


@pytest.fixture(scope="module")
def engine(either_database: sa.Engine) -> Iterator[Engine]:
    database, statements = either_database, Counter[str]()

    def count(_connection: object, _cursor: object, statement: str, *_: Any) -> None:
        statements[statement] += 1

    running = Engine(dbos_client(database), statements)
    dbos = DBOS(config=dbos_config(database, executor_id="polling"))

    @DBOS.workflow(name="echo")
    def echo(word: str) -> None:
        running.ran.put(word)
        if word.startswith("long"):
            running.may_end.wait()

    work = WaitingWork(database, {name: some_enqueued(database, name) for name in QUEUES}, every_s=POLL_S)
    register_queues(running.client, QUEUES, poll_s=POLL_S)
    DBOS.listen_queues(list(QUEUES))
    DBOS.launch()
    poll_only_for_work(dbos, work, QUEUES)
    work.start()
    sa.event.listen(database, "before_cursor_execute", count)
    yield running
    running.may_end.set()
    work.stop()
    began = time.monotonic()
    DBOS.destroy(destroy_registry=True)
    assert time.monotonic() - began < SOON_S, "its threads end when they are told to"
    sa.event.remove(database, "before_cursor_execute", count)
    running.client.destroy()


def test_nothing_is_asked_while_there_is_nothing_to_do(engine: Engine) -> None:
    def is_quiet() -> bool:
        engine.statements.clear()
        time.sleep(QUIET_S)
        return engine.statements.total() <= 5  # a round of each queue would be eighty

    until(is_quiet, 30)  # the first waits are DBOS's own


@pytest.mark.parametrize("queue", QUEUES)
def test_a_workflow_begins_soon_after_a_quiet_spell(engine: Engine, queue: str) -> None:
    time.sleep(5 * POLL_S)
    engine.enqueue(queue, queue)
    assert engine.ran.get(timeout=SOON_S) == queue


def test_a_workflow_that_waits_for_room_begins_soon_after_it_is_free(engine: Engine) -> None:
    engine.enqueue("first", "long")
    assert engine.ran.get(timeout=SOON_S) == "long"
    engine.enqueue("first", "next")
    time.sleep(QUIET_S / 2)
    assert engine.ran.empty()
    engine.may_end.set()
    assert engine.ran.get(timeout=SOON_S) == "next"
