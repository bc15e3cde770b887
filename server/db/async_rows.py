"""The hot reads on Postgres: a few connections of the event loop's own, no ORM and no thread.

A connection that breaks is closed and the read repeated on a new one, so that a restarted server fails no request;
while it is away a read fails at once, or after the connect timeout, and no other read waits for it.
SQLAlchemy's asynchronous engine would do the same at four to five times the CPU time per status.
"""

import asyncio
import re
from collections.abc import Mapping
from typing import Any, Final

import psycopg
import sqlalchemy as sa

from server.db.connection import POSTGRES_OPTIONS

_CONNECTIONS: Final = 8
_PARAMETER: Final = re.compile(r"(?<!:):([a-z_]+)")


class PostgresRows:
    """Runs the SELECTs of `StatusReads`. Belongs to one event loop."""

    watched = "jsonb_each_text(CAST(:watched AS jsonb)) AS w(key, value)"

    def __init__(self, url: sa.URL) -> None:
        self._address = url.set(drivername="postgresql").render_as_string(hide_password=False)
        self._idle: list[psycopg.AsyncConnection[tuple[Any, ...]]] = []
        self._slots = asyncio.Semaphore(_CONNECTIONS)
        self._statements: dict[str, str] = {}

    async def __call__(self, sql: str, parameters: Mapping[str, Any]) -> list[tuple[Any, ...]]:
        """All rows."""
        if any("\0" in value for value in parameters.values() if isinstance(value, str)):
            return []  # no text of Postgres can hold one
        statement = self._statements.get(sql)
        if statement is None:  # the driver's spelling of named parameters
            statement = self._statements[sql] = _PARAMETER.sub(r"%(\1)s", sql)
        async with self._slots:
            while self._idle:
                try:
                    return await self._read(self._idle.pop(), statement, parameters)
                except psycopg.OperationalError:
                    continue  # it broke while it was idle, as the others may have
            return await self._read(await self._connect(), statement, parameters)

    async def close(self) -> None:
        """Close the idle connections."""
        while self._idle:
            await self._idle.pop().close()

    async def _read(
        self,
        connection: psycopg.AsyncConnection[tuple[Any, ...]],
        statement: str,
        parameters: Mapping[str, Any],
    ) -> list[tuple[Any, ...]]:
        try:
            rows = await (await connection.execute(statement, parameters)).fetchall()
        except BaseException:  # a cancelled read too: its answer may still arrive
            await connection.close()
            raise
        self._idle.append(connection)
        return rows

    async def _connect(self) -> psycopg.AsyncConnection[tuple[Any, ...]]:
        options: dict[str, Any] = {**POSTGRES_OPTIONS, "options": "-c default_transaction_read_only=on"}
        return await psycopg.AsyncConnection.connect(self._address, autocommit=True, **options)
