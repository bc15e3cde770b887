"""What an outage of the database or of the object store costs: a job's video is made meanwhile and published after it.

Both are real servers on loopback.
"""

import time
from collections.abc import Iterator
from importlib.util import find_spec
from typing import Any, Final

import httpx

from server.bench.deployment import temporary_server
from server.bench.live_server import LiveServer
from server.bench.object_store import ObjectStore
from server.bench.sample_request import example, grey_uri
from server.bench.throwaway_postgres import Postgres, find_binaries
from server.bench.waiting import expect

DATABASE_AWAY_S: Final = 10.0
STORE_AWAY_S: Final = 5.0
_STEPS: Final = 10  # over while it is away


def database_away(settings: dict[str, Any]) -> Iterator[float]:
    """Seconds from when the database is back until the result is there. Nothing where Postgres is not installed."""
    binaries = find_binaries()
    if binaries is None:
        return
    postgres = Postgres(binaries)
    try:
        postgres.start()
        with temporary_server({**settings, "database_url": postgres.new_database()}) as server:
            job = _rendering(server)
            postgres.stop()
            time.sleep(DATABASE_AWAY_S)
            postgres.start()
            yield _until_published(server, job)
    finally:
        postgres.remove()


def store_away(settings: dict[str, Any]) -> Iterator[float]:
    """Seconds from when the store is back until the result is there. Nothing without the extra `cluster`."""
    if find_spec("obstore") is None:
        return
    with ObjectStore() as store, temporary_server({**settings, **store.settings}) as server:
        job = _rendering(server)
        store.failing = True
        time.sleep(STORE_AWAY_S)
        store.failing = False
        yield _until_published(server, job)


def _rendering(server: LiveServer) -> str:
    job = server.submit(example(image_url=grey_uri(), num_inference_steps=_STEPS))
    server.until_step(job)
    return job


def _until_published(server: LiveServer, job: str) -> float:
    back = time.perf_counter()
    server.until_completed(job)
    seconds = time.perf_counter() - back
    expect(server.result(job).status_code == httpx.codes.OK, "a job outlives an outage")
    attempts = [line for line in server.messages(job) if line.startswith("Attempt")]
    expect(not attempts, "an outage costs no second render")
    return seconds
