"""Videos and images in a bucket: over HTTP, with the store there, away for a while, and gone."""

import contextlib
import os
import shutil
import signal
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import httpx
import psutil
import pytest
from pydantic import SecretStr

from server.bench.deployment import Deployment
from server.bench.object_store import ObjectStore
from server.errors import StorageAway
from server.settings import ObjectStorageSettings
from server.storage.s3 import ObjectStorage
from server.storage.scratch import Scratch
from tests.harness.cluster import Cluster
from tests.harness.live_server import APP, FAST, Server, example, until
from tests.harness.pictures import png
from tests.harness.uploads import initiate

IMPATIENT = {"jobs__storage_retry_delay_s": 0.05}
Start = Callable[..., Server]


@pytest.fixture
def store() -> Iterator[ObjectStore]:
    """A bucket of the test's own."""
    with ObjectStore() as running:
        yield running


def left_on_disk(data_dir: Path) -> set[str]:
    """Files of jobs on this machine."""
    areas = ("tmp", "files", "inputs", "uploads")
    return {path.name for area in areas for path in (data_dir / area).rglob("*") if path.is_file()}


def change(server: Server, statement: str) -> None:
    """What time would do to the rows of its database."""
    with contextlib.closing(sqlite3.connect(server.data_dir / "hunyuan-custom.sqlite", timeout=30)) as database:
        database.execute(statement)
        database.commit()


def wait_for_publish(server: Server, store: ObjectStore) -> str:
    """A job whose video is made and cannot be stored."""
    running = server.submit(example(prompt="WAITS"))
    until((server.data_dir / "renders").exists)  # its image has been fetched
    store.failing = True
    (server.data_dir / "go").touch()
    until(lambda: "The storage is away; trying again" in server.messages(running))
    return running


def published(store: ObjectStore) -> list[str]:
    """The kinds of all files of results."""
    return sorted(Path(key).suffix for key in store.keys("files"))


def test_videos_images_and_uploads_are_in_the_bucket_until_their_time_is_over(
    start_server: Start, store: ObjectStore
) -> None:
    server = start_server(**store.settings, retention__sweep_s=0.1)
    upload, picture = initiate(server), png()
    for _ in range(2):  # a client that lost the answer sends the same again
        assert server.http.put(upload["upload_url"], content=picture).is_success
    (key,) = store.keys("uploads")
    assert store.objects[key].headers["Content-Type"] == "image/png"
    assert server.http.get(upload["file_url"], follow_redirects=True).content == picture

    from_upload, from_body = server.submit(example(image_url=upload["file_url"])), server.submit()
    video = server.finish(from_body).json()["video"]
    assert urlsplit(video["url"]).netloc == urlsplit(server.url).netloc, "what is answered stays valid"
    redirect = server.http.get(video["url"])
    assert (redirect.status_code, redirect.headers["cache-control"]) == (302, "no-store")
    assert redirect.headers["x-content-type-options"] == "nosniff"
    link = redirect.headers["location"]
    assert link.startswith(f"{store.url}/videos/here/files/")
    assert parse_qs(urlsplit(link).query)["X-Amz-Expires"] == ["900"]

    whole = httpx.get(link, trust_env=False, timeout=60)
    assert len(whole.content) == video["file_size"]
    assert whole.headers["content-type"] == "video/mp4"
    assert whole.headers["content-disposition"] == "inline"
    assert whole.headers["cache-control"] == "private, max-age=31536000, immutable"
    part = server.http.get(video["url"], headers={"Range": "bytes=4-7"}, follow_redirects=True)
    assert (part.status_code, part.content) == (206, b"ftyp")
    head = server.http.head(video["url"], follow_redirects=True)
    assert (head.status_code, head.headers["content-length"]) == (200, str(video["file_size"]))
    unknown = server.http.get(f"/files/aa/{'a' * 32}/x.mp4")
    assert (unknown.status_code, unknown.json()["detail"]) == (404, "File not found")

    shown = server.http.get(f"/playground/requests/{from_body}").json()
    thumbnail = server.http.get(shown["thumbnail_url"], follow_redirects=True)
    assert (thumbnail.history[0].status_code, thumbnail.headers["content-type"]) == (302, "image/webp")
    image = server.http.get(f"/playground/requests/{from_body}/image")
    assert (image.status_code, image.headers["content-type"]) == (200, "image/png")

    assert server.finish(from_upload).status_code == 200
    assert left_on_disk(server.data_dir) == set()
    change(server, "UPDATE request SET finished_at = finished_at - 8 * 86400")
    until(lambda: not store.keys("files") + store.keys("inputs"))
    gone = server.http.get(video["url"])
    assert (gone.status_code, gone.json()["error_type"]) == (410, "expired")
    change(server, "UPDATE upload SET expires_at = 0")
    until(lambda: server.http.get(upload["file_url"]).status_code == 404)
    assert not store.objects


def test_a_store_that_is_away_at_publish_costs_no_second_render(start_server: Start, store: ObjectStore) -> None:
    store.failing = True  # at the start it is waited for as well
    server = start_server(**store.settings, **IMPATIENT)
    store.failing = False
    waiting = wait_for_publish(server, store)
    inputs, rendered = store.keys("inputs"), left_on_disk(server.data_dir)

    refused = server.http.post(f"/queue/{APP}", json=example())
    assert (refused.status_code, refused.json()["error_type"]) == (503, "internal_error")
    assert int(refused.headers["retry-after"]) >= 1
    put = server.http.put(initiate(server)["upload_url"], content=png())
    assert (put.status_code, int(put.headers["retry-after"]) >= 1) == (503, True)
    assert server.http.get(f"/files/aa/{'a' * 32}/x.mp4").status_code == 503
    assert server.status(waiting)["status"] == "IN_PROGRESS"
    assert server.http.get("/health/ready").is_success
    assert (store.keys("inputs"), left_on_disk(server.data_dir)) == (inputs, rendered), (
        "a refused submit left something"
    )

    store.failing = False
    assert server.finish(waiting).status_code == 200
    assert published(store) == [".mp4", ".webp"]
    assert (server.data_dir / "renders").read_text().split() == [waiting]
    assert left_on_disk(server.data_dir) == set()
    assert server.finish(server.submit()).status_code == 200


def test_a_store_that_stays_away_fails_the_job_clearly(start_server: Start, store: ObjectStore) -> None:
    server = start_server(**store.settings, **IMPATIENT, jobs__storage_retry_s=0.5)
    given_up = wait_for_publish(server, store)
    answer = server.finish(given_up)
    assert (answer.status_code, answer.json()["error_type"]) == (503, "internal_error")
    assert "storage" in answer.json()["detail"]
    assert int(answer.headers["retry-after"]) >= 1
    until(lambda: left_on_disk(server.data_dir) == set())
    store.failing = False
    assert store.keys("files") == []
    assert server.finish(server.submit(example(prompt="WAITS"))).status_code == 200


def test_a_worker_killed_while_it_publishes_goes_on_where_it_was(start_server: Start, store: ObjectStore) -> None:
    server = start_server(**store.settings, **IMPATIENT)
    waiting = wait_for_publish(server, store)
    killed = server.worker()["pid"]
    psutil.Process(killed).kill()
    until(lambda: server.worker()["pid"] != killed)
    store.failing = False
    answer = server.finish(waiting)
    assert answer.status_code == 200
    assert (server.data_dir / "renders").read_text().split() == [waiting]
    assert server.http.get(answer.json()["video"]["url"], follow_redirects=True).is_success
    assert published(store) == [".mp4", ".webp"]


def test_a_machine_lost_while_it_publishes_has_its_job_rendered_again(tmp_path: Path, store: ObjectStore) -> None:
    """Its disk is lost with it: no other worker can publish the video that was on it."""
    disks = {name: tmp_path / name for name in ("first", "second")}
    for disk in disks.values():
        disk.mkdir()
    shared = {
        "database_url": f"sqlite:///{tmp_path / 'shared.sqlite'}",
        **store.settings,
        **IMPATIENT,
        "jobs__heartbeat_stale_s": 1.5,
    }
    machines = Cluster(tmp_path, **FAST, **shared)
    try:
        machines.command("migrate").check_returncode()
        api = machines.start_api()
        machines.start_worker("first", data_dir=disks["first"])
        waiting = api.submit(example(prompt="WAITS"))
        until((disks["first"] / "renders").exists)
        store.failing = True
        (disks["first"] / "go").touch()
        until(lambda: "The storage is away; trying again" in api.messages(waiting))
        machines.signal("first", signal.SIGKILL)
        machines.wait("first")
        shutil.rmtree(disks["first"])
        store.failing = False
        (disks["second"] / "go").touch()
        machines.start_worker("second", data_dir=disks["second"])
        answer = api.finish(waiting)
        assert answer.status_code == 200
        assert api.http.get(answer.json()["video"]["url"], follow_redirects=True).is_success
        assert "The video was lost with the machine that rendered it" in api.messages(waiting)
        assert published(store) == [".mp4", ".webp"], "one video per result, and its thumbnail"
    finally:
        machines.kill()


def test_a_large_video_is_stored_in_parts_and_shows_only_at_its_end(tmp_path: Path, store: ObjectStore) -> None:
    settings = ObjectStorageSettings(endpoint=store.url, access_key_id="id", secret_access_key=SecretStr("secret"))
    storage = ObjectStorage("s3://videos/here", settings, scratch=Scratch(tmp_path))
    video, key = tmp_path / "video.mp4", storage.new_key("files", "x.mp4")
    content = os.urandom(20 * 2**20)
    video.write_bytes(content)
    store.failing = True
    with pytest.raises(StorageAway):
        storage.put(video, key)
    assert video.exists(), "the only copy"
    store.failing = False
    assert storage.size(key) is None
    assert storage.put(video, key) == len(content)
    stored = store.objects[f"here/{key}"]
    assert (stored.content, stored.parts) == (content, 3)
    assert stored.headers["Content-Type"] == "video/mp4"
    assert not video.exists()
    with storage.local(key) as copy:
        assert copy is not None
        assert copy.read_bytes() == content
    for _ in range(2):
        storage.delete(key)
    assert storage.size(key) is None
    assert not store.objects


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        ({"object_storage__access_key_id": "nobody"}, "InvalidAccessKeyId"),
        ({"storage_url": "s3://elsewhere"}, "NoSuchBucket"),
    ],
)
def test_a_wrong_bucket_or_key_stops_the_start_with_one_line(
    tmp_path: Path, store: ObjectStore, wrong: dict[str, str], reason: str
) -> None:
    done = Deployment(tmp_path, store.settings | wrong).command("serve", "--port", "0")
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: storage_url")
    assert reason in line
    assert "secret" not in line
