"""DBOS stopped between two transactions, by triggers on its table; SQLite."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

DATABASE = "hunyuan-custom.sqlite"

RENDER_NEVER_ENDS = "OLD.name = 'render' AND NEW.status = 'SUCCESS'"
PUBLISH_NEVER_STARTS = "OLD.name = 'publish' AND NEW.status = 'PENDING'"


@contextmanager
def engine_that_ignores(data_dir: Path, *changes: str) -> Iterator[None]:
    """The engine's row does not change in these ways, as if its transaction were about to begin for ever."""
    with closing(sqlite3.connect(data_dir / DATABASE, timeout=30)) as database:
        for number, change in enumerate(changes):
            trigger = f"CREATE TRIGGER stop{number} BEFORE UPDATE ON workflow_status WHEN {change}"
            database.execute(f"{trigger} BEGIN SELECT RAISE(IGNORE); END")
        database.commit()
        yield
        for number in range(len(changes)):
            database.execute(f"DROP TRIGGER stop{number}")
        database.commit()


def value(data_dir: Path, query: str) -> object:
    with closing(sqlite3.connect(data_dir / DATABASE, timeout=30)) as database:
        return database.execute(query).fetchone()[0]


def publishes(data_dir: Path) -> object:
    return value(data_dir, "SELECT count(*) FROM workflow_status WHERE name = 'publish'")
