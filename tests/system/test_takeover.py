"""Workers that are gone, or seem to be: the others take over, and who comes back changes nothing. On both databases."""

import logging
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from server.bench.throwaway_postgres import Postgres
from server.db.migrations import migrate
from tests.harness.cluster import Cluster, freeze
from tests.harness.live_server import FAST, example, until

logger = logging.getLogger(__name__)  # `pytest --log-cli-level=INFO` shows what was measured

STALE_S = 1.5


@pytest.fixture(params=["sqlite", "postgres"])
def cluster(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Cluster]:
    """One API and workers that are thought dead soon, on one disk."""
    url = f"sqlite:///{tmp_path / 'hunyuan-custom.sqlite'}"
    if request.param == "postgres":
        postgres: Postgres = request.getfixturevalue("postgres")
        url = postgres.new_database()
    migrate(url, tmp_path / "lock")
    machines = Cluster(tmp_path, **FAST, database_url=url, jobs__heartbeat_stale_s=STALE_S)
    yield machines
    machines.kill()


def test_another_worker_takes_over_from_one_that_is_gone(cluster: Cluster) -> None:
    api = cluster.start_api()
    cluster.start_worker("first")
    running = api.submit(example(prompt="WORKS_SLOWLY"))
    api.until_running(running)
    cluster.start_worker("second")
    until(lambda: len(api.http.get("/health/ready").json()["workers"]) == 2)
    cluster.signal("first", signal.SIGKILL)
    killed = time.monotonic()
    until(lambda: "Attempt 2" in api.messages(running))
    logger.info("takeover_s_beyond_stale: %.2f", time.monotonic() - killed - STALE_S)
    api.cancel(running)
    assert api.finish(running).status_code == 499


def test_a_worker_that_was_only_frozen_changes_nothing_when_it_thaws(cluster: Cluster) -> None:
    api = cluster.start_api()
    first = psutil.Process(cluster.start_worker("first"))
    running = api.submit(example(prompt="WORKS_SLOWLY"))
    api.until_running(running)
    frozen = [first, *first.children()]
    freeze(api, *frozen)
    cluster.start_worker("second", renderer="renders_colour")
    answer = api.finish(running)
    assert answer.status_code == 200
    for process in frozen:
        process.resume()
    after = api.submit(example(prompt="a colour"))
    assert api.finish(after).status_code == 200
    assert api.result(running).json() == answer.json()
    assert api.http.get(answer.json()["video"]["url"]).status_code == 200
    assert len(list((api.data_dir / "files").rglob("*.mp4"))) == 2, "one file per result"
