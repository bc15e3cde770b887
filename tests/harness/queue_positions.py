"""Queue positions as a status call sees them, for tests that are not asynchronous."""

import asyncio

import sqlalchemy as sa

from server.db.async_rows import PostgresRows
from server.jobs.status_reads import SqliteRows, StatusReads


class QueuePositions:
    """Positions, read as the API reads them."""

    def __init__(self, database: sa.Engine) -> None:
        sqlite = database.dialect.name == "sqlite"
        self._rows = SqliteRows(str(database.url.database)) if sqlite else PostgresRows(database.url)
        self._reads = StatusReads(self._rows)
        self._loop = asyncio.Runner()

    def position(self, request_id: str, owner: str = "local") -> int:
        return self._loop.run(self._position(request_id, owner))

    async def _position(self, request_id: str, owner: str) -> int:
        state = await self._reads.state(request_id, owner=owner)
        assert state is not None
        return await self._reads.position(state)

    def close(self) -> None:
        if isinstance(self._rows, PostgresRows):
            self._loop.run(self._rows.close())
        self._loop.close()
