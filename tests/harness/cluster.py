"""One API and several workers as processes of their own on one database, without a supervisor."""

import contextlib
import sqlite3
import time
from pathlib import Path
from typing import Any

import psutil

from server.bench.deployment import Deployment
from tests.harness.live_server import Server, fake


def freeze(api: Server, *processes: psutil.Process) -> None:
    """Stop them, but not within a transaction of SQLite: its lock is the whole database's, and would be kept."""
    file = api.data_dir / "hunyuan-custom.sqlite"
    for _ in range(100):
        for process in processes:
            process.suspend()
        if not file.exists():
            return
        database = sqlite3.connect(file, timeout=0.2, isolation_level=None)
        with contextlib.closing(database), contextlib.suppress(sqlite3.OperationalError):
            database.execute("BEGIN IMMEDIATE")
            return
        for process in processes:
            process.resume()
        time.sleep(0.05)
    raise AssertionError("they are never without a transaction")


class Cluster(Deployment):
    """Workers with fake generators, by name."""

    def __init__(self, data_dir: Path, **settings: Any) -> None:
        super().__init__(data_dir, settings)

    def start_worker(
        self, name: str, *, data_dir: Path | None = None, renderer: str = "by_prompt", **settings: Any
    ) -> int:
        return super().start_worker(name, data_dir=data_dir, generator__renderer=fake(renderer), **settings)
