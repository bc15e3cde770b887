"""Workers that are killed, frozen or cancelled between two transactions: one result, one file, one webhook."""

import shutil
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import psutil
import pytest

from server.bench.loopback import serving
from server.bench.object_store import ObjectStore
from server.db.migrations import migrate
from tests.harness.cluster import Cluster, freeze
from tests.harness.live_server import APP, FAST, Server, example, until
from tests.harness.stopped_engine import (
    DATABASE,
    PUBLISH_NEVER_STARTS,
    RENDER_NEVER_ENDS,
    engine_that_ignores,
    publishes,
    value,
)

STALE_S = 1.5


@pytest.fixture
def make_cluster(tmp_path: Path) -> Iterator[Callable[..., tuple[Cluster, Server]]]:
    """An API, and workers that are thought dead soon."""
    made: list[Cluster] = []

    def make(**settings: str) -> tuple[Cluster, Server]:
        url = f"sqlite:///{tmp_path / DATABASE}"
        migrate(url, tmp_path / "lock")
        limits = {"jobs__heartbeat_stale_s": STALE_S, "jobs__storage_retry_delay_s": 0.1}
        cluster = Cluster(tmp_path, **FAST, **limits, database_url=url, **settings)
        made.append(cluster)
        return cluster, cluster.start_api()

    yield make
    for cluster in made:
        cluster.kill()


def stored_videos(bucket: ObjectStore) -> list[str]:
    """Keys; some have a thumbnail beside them."""
    return [key for key in bucket.keys("files") if key.endswith(".mp4")]


def videos(data_dir: Path) -> list[Path]:
    return list((data_dir / "files").rglob("*.mp4"))


@pytest.mark.parametrize("heir", ["first", "second"])
def test_a_worker_killed_after_it_handed_on_its_video_loses_nothing(
    make_cluster: Callable[..., tuple[Cluster, Server]], heir: str
) -> None:
    cluster, api = make_cluster()
    cluster.start_worker("first", renderer="waits_for_a_file")
    (api.data_dir / "go").touch()
    with engine_that_ignores(api.data_dir, RENDER_NEVER_ENDS, PUBLISH_NEVER_STARTS):
        request_id = api.submit()
        until(lambda: publishes(api.data_dir) == 1)
        cluster.signal("first", signal.SIGKILL)
        cluster.wait("first")
    cluster.start_worker(heir, renderer="waits_for_a_file")
    assert api.finish(request_id).status_code == 200
    assert (api.data_dir / "renders").read_text().split() == [request_id], "rendered once"
    assert len(videos(api.data_dir)) == 1


def test_a_video_that_is_lost_with_its_machine_is_rendered_again(
    make_cluster: Callable[..., tuple[Cluster, Server]], tmp_path: Path
) -> None:
    disks = tmp_path / "first", tmp_path / "second"
    for disk in disks:
        disk.mkdir()
    with ObjectStore() as bucket:
        cluster, api = make_cluster(**bucket.settings)
        cluster.start_worker("first", renderer="finishes_at_once", data_dir=disks[0])
        with engine_that_ignores(api.data_dir, PUBLISH_NEVER_STARTS):
            request_id = api.submit()
            until(lambda: publishes(api.data_dir) == 1)
            cluster.signal("first", signal.SIGKILL)
            cluster.wait("first")
        shutil.rmtree(disks[0])
        cluster.start_worker("second", renderer="finishes_at_once", data_dir=disks[1])
        until(lambda: api.status(request_id)["status"] == "COMPLETED")
        assert value(api.data_dir, "SELECT response_status FROM request") == 200
        assert "The video was lost with the machine that rendered it" in api.messages(request_id)
        assert "Attempt 2" in api.messages(request_id)
        assert len(stored_videos(bucket)) == 1


def test_a_render_that_ends_after_its_worker_thawed_changes_nothing(
    make_cluster: Callable[..., tuple[Cluster, Server]], tmp_path: Path
) -> None:
    cluster, api = make_cluster()
    with receiver() as (url, calls):
        first = psutil.Process(cluster.start_worker("first", renderer="waits_for_a_file"))
        answer = api.http.post(f"/queue/{APP}", params={"fal_webhook": url}, json=example())
        request_id = answer.json()["request_id"]
        until((tmp_path / "renders").exists)
        freeze(api, first)  # its generator goes on
        (tmp_path / "go").touch()
        cluster.start_worker("second", renderer="finishes_at_once")
        result = api.finish(request_id)
        assert result.status_code == 200
        until(lambda: any((tmp_path / "tmp").glob(f"{request_id}-1.mp4")))
        log = api.messages(request_id)
        first.resume()
        until(lambda: not any((tmp_path / "tmp").iterdir()))
        after = api.submit()
        assert api.finish(after).status_code == 200
        assert api.result(request_id).json() == result.json()
        assert api.messages(request_id) == log
        assert len(videos(tmp_path)) == 2
        until(lambda: len(calls) == 1)


def test_a_publisher_that_thaws_finds_its_work_done(
    make_cluster: Callable[..., tuple[Cluster, Server]], tmp_path: Path
) -> None:
    with ObjectStore() as bucket, receiver() as (url, calls):
        cluster, api = make_cluster(**bucket.settings)
        first = psutil.Process(cluster.start_worker("first", renderer="waits_for_a_file"))
        answer = api.http.post(f"/queue/{APP}", params={"fal_webhook": url}, json=example())
        request_id = answer.json()["request_id"]
        until((tmp_path / "renders").exists)
        bucket.failing = True
        (tmp_path / "go").touch()
        until(lambda: "The storage is away; trying again" in api.messages(request_id))
        freeze(api, first)
        bucket.failing = False
        cluster.start_worker("second", renderer="finishes_at_once")
        until(lambda: api.status(request_id)["status"] == "COMPLETED")
        first.resume()
        assert api.finish(api.submit()).status_code == 200
        until(lambda: not any((tmp_path / "tmp").iterdir()))
        kept = value(tmp_path, "SELECT video_key FROM request WHERE response_status = 200 ORDER BY seq")
        until(lambda: len(stored_videos(bucket)) == 2)  # after its scratch file the late publisher removes its video
        assert f"here/{kept}" in stored_videos(bucket)
        until(lambda: len(calls) == 1)


def test_a_cancel_does_not_wait_for_a_storage_that_is_away(
    make_cluster: Callable[..., tuple[Cluster, Server]], tmp_path: Path
) -> None:
    with ObjectStore() as bucket:
        cluster, api = make_cluster(**bucket.settings)
        cluster.start_worker("first", renderer="waits_for_a_file")
        publishing, fetching = api.submit(), api.submit()
        until(lambda: len(bucket.keys("inputs")) == 4 and (tmp_path / "renders").exists())
        bucket.failing = True
        (tmp_path / "go").touch()
        for request_id in (publishing, fetching):
            until(lambda one=request_id: "The storage is away; trying again" in api.messages(one))
        for request_id in (publishing, fetching):
            api.cancel(request_id)
        for request_id in (publishing, fetching):
            until(lambda one=request_id: api.status(one)["status"] == "COMPLETED")
            assert api.result(request_id).status_code == 499
        bucket.failing = False
        last = api.submit()
        until(lambda: api.status(last)["status"] == "COMPLETED")
        assert len(stored_videos(bucket)) == 1


def test_a_worker_stopped_before_its_generator_got_the_job_costs_no_fault(
    make_cluster: Callable[..., tuple[Cluster, Server]], tmp_path: Path
) -> None:
    with ObjectStore() as bucket:
        cluster, api = make_cluster(**bucket.settings)
        cluster.start_worker("first", renderer="cannot_load")
        request_id = api.submit()
        until(lambda: bool(value(tmp_path, "SELECT count(*) FROM workflow_status WHERE name = 'render'")))
        bucket.failing = True
        (tmp_path / "weights.safetensors").touch()
        until(lambda: "The storage is away; trying again" in api.messages(request_id))
        cluster.signal("first", signal.SIGTERM)
        assert cluster.wait("first") == 0
        assert api.status(request_id)["status"] == "IN_QUEUE"
        assert value(tmp_path, "SELECT faults FROM request") == 0


def test_a_worker_without_a_model_leaves_jobs_to_the_others(
    make_cluster: Callable[..., tuple[Cluster, Server]],
) -> None:
    cluster, api = make_cluster()
    cluster.start_worker("broken", renderer="cannot_load")
    request_id = api.submit()
    until(lambda: "weights prepare" in api.http.get("/health/ready").text)
    until(lambda: bool(value(api.data_dir, "SELECT count(*) FROM workflow_status WHERE name = 'render'")))
    cluster.start_worker("sound", renderer="finishes_at_once")
    assert api.finish(request_id).status_code == 200


def test_drain_and_stop_are_heard_while_the_model_loads(
    make_cluster: Callable[..., tuple[Cluster, Server]],
) -> None:
    cluster, api = make_cluster()
    cluster.start_worker("loading", renderer="cannot_load")
    until(lambda: "weights prepare" in api.http.get("/health/ready").text)
    cluster.command("drain").check_returncode()
    request_id = api.submit()
    (api.data_dir / "weights.safetensors").touch()
    until(lambda: api.worker()["state"] == "ready")
    until(lambda: bool(value(api.data_dir, "SELECT count(*) FROM workflow_status WHERE name = 'render'")))
    assert api.status(request_id)["status"] == "IN_QUEUE"
    cluster.signal("loading", signal.SIGTERM)
    assert cluster.wait("loading") == 0
    assert value(api.data_dir, "SELECT attempt FROM request") == 0
    cluster.start_worker("undrained", renderer="finishes_at_once")
    assert api.finish(request_id).status_code == 200


@contextmanager
def receiver() -> Iterator[tuple[str, list[bytes]]]:
    """Where webhooks go; what came."""
    calls: list[bytes] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            calls.append(self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(200)
            self.end_headers()

    with serving(Handler) as url:
        yield f"{url}/hook", calls
