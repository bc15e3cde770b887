"""Whether there is work in the database: one cheap question for all threads of a process that wait for some.

Each would otherwise ask for its own, several times a second, at many times the price.
"""

import logging
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, Final

import sqlalchemy as sa

from server.db.outage import OUTAGES, is_outage

logger = logging.getLogger(__name__)

NOW: Final = sa.bindparam("now", type_=sa.Double)  # Unix seconds, for conditions on time
# A thread looks for itself after this time, whatever the answers were.
_LONGEST_S: Final = 10.0
_LAST_ANSWER_S: Final = 1.0


class WaitingWork:
    """Asks every `every_s` seconds, over a connection of its own. `kinds`: SELECTs that find a row if there is work.

    While it cannot ask there is said to be work of every kind: then all look for themselves.
    """

    def __init__(
        self,
        database: sa.Engine,
        kinds: Mapping[str, sa.Select[Any]],
        *,
        every_s: float,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._database = database
        self._every_s = every_s
        self._clock = clock
        self._all = frozenset(kinds)
        question = sa.union_all(*(sa.select(sa.literal(kind)).where(sa.exists(work)) for kind, work in kinds.items()))
        self._question = question.compile(database)
        self._connection: Any = None
        self._knows = True
        self._answered = threading.Condition()
        self._found = self._all
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="waiting-work", daemon=True)

    def start(self) -> None:
        """Begin to ask."""
        self._thread.start()

    def stop(self) -> None:
        """Let all threads go that wait, and those that will."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join(_LAST_ANSWER_S)
        self._answer(self._all)  # the last word: an answer that was on its way is not

    def wait(self, kind: str) -> None:
        """Return at once if there was work of this kind when it was last asked, else when there is."""
        with self._answered:
            self._answered.wait_for(lambda: kind in self._found, _LONGEST_S)

    def _watch(self) -> None:
        while not self._stopping.wait(self._every_s):
            found = self._ask()
            if not self._stopping.is_set():
                self._answer(found)
        self._disconnect()

    def _answer(self, found: frozenset[str]) -> None:
        with self._answered:
            self._found = found
            if found:
                self._answered.notify_all()

    def _ask(self) -> frozenset[str]:
        try:
            if self._connection is None:
                self._connection = self._connect()
            found = frozenset(row[0] for row in self._connection.execute(str(self._question), self._values()))
        except Exception as error:
            if is_outage(error):
                OUTAGES.noticed(error)
            elif self._knows:
                logger.exception("whether there is work cannot be asked; every thread looks for itself")
            self._knows = False
            self._disconnect()
            return self._all
        self._knows = True
        return found

    def _connect(self) -> Any:
        """The driver's own connection: through SQLAlchemy the question costs several times as much."""
        pooled = self._database.raw_connection()
        connection: Any = pooled.driver_connection
        pooled.detach()
        if self._database.dialect.name != "sqlite":
            connection.autocommit = True  # SQLite begins no transaction for a SELECT
        return connection

    def _disconnect(self) -> None:
        with suppress(Exception):  # it may be broken
            self._connection.close()
        self._connection = None

    def _values(self) -> Any:
        values = self._question.construct_params({NOW.key: self._clock()})
        names = self._question.positiontup  # of a driver that takes a sequence
        return values if names is None else [values[name] for name in names]
