"""`hunyuan-custom bench kept`: what the large reads cost when many finished requests are kept."""

import json
import random
import tempfile
import time
import uuid
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

import sqlalchemy as sa
import typer

from server.bench.throwaway_postgres import Postgres, find_binaries
from server.db.connection import create_engine
from server.db.migrations import migrate
from server.db.tables import request_table, usage_table, webhook_table
from server.fal.schemas import HunyuanCustomInput
from server.jobs.history import History
from server.jobs.overview_reader import OverviewReader
from server.jobs.totals import TotalsReader

_OWNERS: Final = 200
_DAYS: Final = 30
_WAITING: Final = 1000  # as many as may (`limits.max_queue`)
_FAILED_SHARE: Final = 0.01
_REPEATS: Final = 30
_AT_ONCE: Final = 5000  # rows of one statement
_PAGE: Final = 24
_FAILURE: Final = {"detail": "The generator stopped while working on this request", "error_type": "runner_disconnected"}


def bench_kept(*, requests: int) -> None:
    """Measure and print, on SQLite and on PostgreSQL where that is installed."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        urls = {"SQLite": f"sqlite:///{folder / 'kept.sqlite'}"}
        if (binaries := find_binaries()) is not None:
            postgres = Postgres(binaries)
            stack.callback(postgres.remove)
            postgres.start()
            urls["PostgreSQL"] = postgres.new_database()
        typer.echo(f"{requests} requests kept, of {_OWNERS} owners; fastest and median of {_REPEATS}, in ms")
        for name, url in urls.items():
            migrate(url, folder / "lock")
            database = create_engine(url)
            stack.callback(database.dispose)
            _fill(database, requests)
            for what, read in _reads(database).items():
                first, *later = [_ms(read) for _ in range(1 + _REPEATS)]
                later.sort()
                typer.echo(
                    f"{name:<11}{what:<28}{later[0]:>8.1f}{later[_REPEATS // 2]:>8.1f}   the first time {first:.0f}"
                )


def _reads(database: sa.Engine) -> Mapping[str, Callable[[], object]]:
    history = History(database)
    return {
        "operator's overview": OverviewReader(database, stale_s=20.0).read,
        "totals for /metrics": TotalsReader(database).read,
        "first page of an owner": lambda: history.page("owner-0", limit=_PAGE),
    }


def _ms(read: Callable[[], object]) -> float:
    started = time.perf_counter()
    read()
    return 1e3 * (time.perf_counter() - started)


def _fill(database: sa.Engine, requests: int) -> None:
    """Finished requests of the last weeks with usage and webhooks, and a full queue."""
    chance = random.Random(0)  # noqa: S311 - no secret
    for first in range(0, requests, _AT_ONCE):
        rows = [_finished(chance, number) for number in range(first, min(first + _AT_ONCE, requests))]
        with database.begin() as transaction:
            transaction.execute(request_table.insert(), rows)
            transaction.execute(usage_table.insert(), [_usage(row) for row in rows])
            transaction.execute(webhook_table.insert(), [_webhook(row) for row in rows])
    waiting = [{**_row(number, _id(requests + number)), "status": "IN_QUEUE"} for number in range(_WAITING)]
    with database.begin() as transaction:
        transaction.execute(request_table.insert(), waiting)
    if database.dialect.name != "sqlite":
        with database.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.execute(sa.text("ANALYZE"))


def _row(number: int, request_id: str) -> dict[str, Any]:
    body = HunyuanCustomInput(prompt="A woman is playing a violin. " * 10, image_url="data:")
    common = {"seed": "1", "base_url": "http://127.0.0.1", "created_at": time.time(), "priority": 0}
    return common | {
        "id": request_id,
        "owner": f"owner-{number % _OWNERS}",
        "input_json": body.model_dump_json(),
        "queue_order": number + 1,
    }


def _finished(chance: random.Random, number: int) -> dict[str, Any]:
    end = time.time() - chance.uniform(0, _DAYS * 86400)
    failed = chance.random() < _FAILED_SHARE
    error = {
        "response_status": 503 if failed else 200,
        "response_json": json.dumps(_FAILURE) if failed else None,
        "error_type": _FAILURE["error_type"] if failed else None,
        "error": _FAILURE["detail"] if failed else None,
        "video_key": None if failed else f"files/ab/{number:032}/video.mp4",
    }
    times = {"created_at": end - 600, "started_at": end - 460, "finished_at": end}
    return {**_row(number, _id(number)), **times, **error, "status": "COMPLETED", "attempt": 1}


def _usage(row: Mapping[str, Any]) -> dict[str, Any]:
    kept = {"request_id": row["id"], "owner": row["owner"], "finished_at": row["finished_at"]}
    return kept | {"outcome": row["error_type"] or "completed", "gpu_seconds": 460.0, "frames": 129}


def _webhook(row: Mapping[str, Any]) -> dict[str, Any]:
    state = "failed" if row["error_type"] else "delivered"
    return {"request_id": row["id"], "url": "https://example.com/", "state": state, "next_at": row["finished_at"]}


def _id(number: int) -> str:
    return str(uuid.UUID(int=number))
