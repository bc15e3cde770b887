"""Faults of machines, disks and processes: nothing is lost and nothing is done twice."""

import concurrent.futures
import contextlib
import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import psutil
import pytest

from server.bench.waiting import child_processes
from server.db.outage import is_outage
from tests.harness.cluster import Cluster
from tests.harness.live_server import APP, FAST, ROOT, Server, example, launch, until
from tests.harness.outages import filled, mounted


def count(folder: Path) -> int:
    """How many files are in it."""
    return sum(path.is_file() for path in folder.rglob("*"))


def test_accepted_requests_survive_a_killed_api(server: Server) -> None:
    accepted: list[str] = []

    def submit(_: int) -> None:
        accepted.append(server.submit(example(prompt="AT_ONCE")))

    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        submitting = [pool.submit(submit, number) for number in range(40)]
        until(lambda: len(accepted) > 10)
        psutil.Process(server.pid_of("api")).kill()
        failed = [error for one in submitting if (error := one.exception()) is not None]
    assert len(accepted) + len(failed) == 40
    assert all(isinstance(error, httpx.TransportError) for error in failed), "refused, and not answered wrongly"
    assert all(server.finish(request_id).status_code == 200 for request_id in accepted)


def test_a_submit_whose_api_was_killed_is_there_once_when_it_is_repeated(server: Server) -> None:
    """Killed while it waits for the write lock; the client repeats the call with its Idempotency-Key."""
    for ending in ("ROLLBACK", "COMMIT"):
        database = sqlite3.connect(server.data_dir / "hunyuan-custom.sqlite", isolation_level=None)
        database.execute("BEGIN IMMEDIATE")
        images = count(server.data_dir / "inputs")
        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            submitting = pool.submit(server.submit, **{"idempotency-key": ending})
            until(lambda before=images: count(server.data_dir / "inputs") > before)
            concurrent.futures.wait([submitting], timeout=0.3)  # from its image, which is stored first, to the lock
            assert not submitting.done()
            api = psutil.Process(server.pid_of("api"))
            api.kill()
            api.wait()
            assert isinstance(submitting.exception(timeout=60), httpx.TransportError)
        database.execute(ending)
        database.close()
        again = {server.submit(**{"idempotency-key": ending}) for _ in range(2)}
        assert len(again) == 1
        assert server.finish(again.pop()).status_code == 200
    with contextlib.closing(sqlite3.connect(server.data_dir / "hunyuan-custom.sqlite")) as database:
        of_these = "SELECT count(*) FROM request WHERE idempotency_key IN ('ROLLBACK', 'COMMIT')"
        assert database.execute(of_these).fetchone() == (2,)


def test_positions_outlive_the_api_however_often_it_is_killed(server: Server) -> None:
    running = server.submit(example(prompt="WORKS_SLOWLY"))
    server.until_running(running)
    line: list[str] = []
    for _ in range(2):
        line += [server.submit(), server.submit()]
        api = psutil.Process(server.pid_of("api"))
        api.kill()
        api.wait()
        assert [server.status(waiting)["queue_position"] for waiting in line] == list(range(len(line)))
    server.cancel(running)
    assert server.finish(line[-1]).status_code == 200


def test_five_servers_on_one_empty_directory_come_up(tmp_path: Path) -> None:
    with contextlib.ExitStack() as started, concurrent.futures.ThreadPoolExecutor(5) as pool:
        launching = [
            pool.submit(launch, tmp_path, ready=False, renderer="finishes_at_once", **FAST, worker_id=f"worker{number}")
            for number in range(5)
        ]
        servers = [one.result(timeout=240) for one in launching]
        for server in servers:
            started.callback(server.stop)
        until(lambda: len(servers[0].http.get("/health/ready").json()["workers"]) == 5, timeout_s=240)
        submitted = [server.submit() for server in servers]
        assert [servers[0].finish(request_id).status_code for request_id in submitted] == [200] * 5


def test_a_worker_that_cannot_go_on_ends_and_is_replaced(server: Server) -> None:
    """Not wedged: its job runs on another thread, and nobody would beat for it."""
    running = server.submit(example(prompt="WORKS_SLOWLY"))
    server.until_running(running)
    worker = psutil.Process(server.worker()["pid"])
    with contextlib.closing(sqlite3.connect(server.data_dir / "hunyuan-custom.sqlite", timeout=30)) as database:
        database.execute("ALTER TABLE worker RENAME TO hidden")
        until(lambda: not worker.is_running() or worker.status() == psutil.STATUS_ZOMBIE)
        database.execute("ALTER TABLE hidden RENAME TO worker")
    until(lambda: "Attempt 2" in server.messages(running))
    server.cancel(running)
    assert server.finish(running).status_code == 499


def test_jobs_outlive_the_loss_of_the_engines_tables(start_server: Callable[..., Server], tmp_path: Path) -> None:
    first = start_server()
    running, waiting = first.submit(example(prompt="WORKS_SLOWLY")), first.submit()
    first.until_running(running)
    first.stop()
    with sqlite3.connect(tmp_path / "hunyuan-custom.sqlite") as database:
        ours = {"request", "request_log", "worker"}
        tables = {name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        dbos = {name for name in tables if name.startswith(("workflow", "operation", "dbos", "queues", "notif"))}
        assert ours <= tables
        for table in dbos | ({"streams", "application_versions"} & tables):
            database.execute(f"DROP TABLE {table}")
    database.close()
    second = start_server(jobs__reconcile_s=0.5)
    second.until_running(running)
    second.cancel(running)
    assert second.finish(waiting).status_code == 200


def test_queued_jobs_run_on_after_an_upgrade(start_server: Callable[..., Server], tmp_path: Path) -> None:
    old = start_server(data_dir=tmp_path / "data")
    running, waiting = old.submit(example(prompt="WORKS_SLOWLY")), old.submit(example(seed=11))
    old.until_running(running)
    assert old.stop() == 0
    upgraded = tmp_path / "upgraded"
    for package in ("server", "pipeline", "weights", "configs", "tests/fakes"):
        shutil.copytree(ROOT / package, upgraded / package)
    worker = upgraded / "server/worker/process.py"
    source = worker.read_text()
    changed = source.replace("preparation.run(request_id)", "preparation.run(str(request_id))")
    assert changed != source
    worker.write_text(changed)
    new = start_server(data_dir=tmp_path / "data", root=upgraded)
    new.until_running(running)
    new.cancel(running)
    assert new.finish(waiting).json()["seed"] == 11


def test_a_stopping_worker_gives_its_job_back_without_blame(server: Server) -> None:
    running = server.submit(example(prompt="WORKS_SLOWLY"))
    server.until_running(running)
    for _ in range(3):  # a third fault would not be forgiven
        worker = server.worker()["pid"]
        psutil.Process(worker).terminate()
        until(lambda worker=worker: server.worker()["pid"] != worker)
        until(lambda: server.status(running)["status"] == "IN_PROGRESS")
    assert not any("lost" in message for message in server.messages(running))
    server.cancel(running)
    assert server.finish(running).status_code == 499


def test_a_stopping_worker_writes_what_its_jobs_log_has_collected(start_server: Callable[..., Server]) -> None:
    server = start_server(renderer="falls_silent")
    running = server.submit()
    with contextlib.closing(sqlite3.connect(server.data_dir / "hunyuan-custom.sqlite", timeout=30)) as database:
        blocks = "SELECT done FROM progress"  # reported after the lines: the worker has all of them
        until(lambda: database.execute(blocks).fetchone() == (3,))
        assert server.stop() == 0
        logged = database.execute("SELECT message FROM request_log WHERE request_id = ? ORDER BY id", [running])
        messages = [message for (message,) in logged]
    assert messages[-4:] == ["one", "two", "three", "The worker is stopping; the job goes on with the next one"]


def test_a_video_that_waits_for_the_database_is_not_swept_away(start_server: Callable[..., Server]) -> None:
    """However old it is: an outage may be longer than `retention.scratch_s`."""
    server = start_server(jobs__reconcile_s=0.3)
    running = server.submit(example(prompt="WAITS"))
    server.until_running(running)
    with contextlib.closing(sqlite3.connect(server.data_dir / "hunyuan-custom.sqlite", timeout=30)) as database:
        database.execute("UPDATE request SET created_at = created_at - 200000")
        database.commit()
    rendered, left = (server.data_dir / "tmp" / f"{name}-1.mp4" for name in (running, "0" * 36))
    for paths in ([left], [rendered, left]):  # the first sweep may have looked before the job was there
        for path in paths:
            path.touch()
            os.utime(path, (0, 0))
        until(lambda: not left.exists())
    assert rendered.exists()
    server.cancel(running)
    assert server.finish(running).status_code == 499


def test_a_stopping_worker_finishes_within_its_grace(start_server: Callable[..., Server]) -> None:
    server = start_server(jobs__shutdown_grace_s=60)
    running = server.submit(example(prompt="WAITS"))
    server.until_running(running)
    psutil.Process(server.worker()["pid"]).terminate()
    until(lambda: server.worker()["state"] == "stopped")
    (server.data_dir / "go").touch()
    assert server.finish(running).status_code == 200
    assert not any("Attempt" in message for message in server.messages(running))


def test_a_draining_worker_takes_no_more_jobs(server: Server) -> None:
    running = server.submit(example(prompt="WORKS_SLOWLY"))
    server.until_running(running)
    drain = [sys.executable, "-m", "server", "drain", "--data-dir", str(server.data_dir)]
    draining = subprocess.Popen(drain, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    try:
        until(lambda: bool(server.worker()["draining"]))
        waiting = server.submit()
        server.cancel(running)
        assert "drained" in draining.communicate(timeout=60)[0]
        assert server.status(waiting)["status"] == "IN_QUEUE"
    finally:
        subprocess.run([*drain, "--undo"], cwd=ROOT, check=True)
    assert server.finish(waiting).status_code == 200


def test_an_out_of_memory_job_is_tried_once_more_with_less_on_the_gpu(start_server: Callable[..., Server]) -> None:
    server = start_server(renderer="runs_out_of_memory")
    fits = server.submit()
    assert server.finish(fits).status_code == 200
    assert any("offload_encoders" in message for message in server.messages(fits))
    never = server.submit(example(prompt="NEVER_FITS"))
    answer = server.finish(never)
    assert (answer.status_code, answer.json()["detail"]) == (503, "CUDA error: out of memory")
    impatient = server.submit(example(prompt="NEVER_FITS"), **{"x-fal-no-retry": "1"})
    assert server.finish(impatient).json()["detail"] == "CUDA error: out of memory"
    assert not any("trying again" in message for message in server.messages(impatient))
    assert server.finish(server.submit()).status_code == 200


def test_an_idle_generator_lets_go_of_the_gpu_and_comes_back(start_server: Callable[..., Server]) -> None:
    server = start_server(generator__idle_unload_s=1)
    until(lambda: server.worker()["state"] == "idle")
    assert not child_processes(server.worker()["pid"], "server.generator.child.process")
    assert server.http.get("/health/ready").status_code == 200
    assert server.finish(server.submit()).status_code == 200


def test_a_full_disk_refuses_new_jobs_and_keeps_the_old(server: Server) -> None:
    finished = urlsplit(server.finish(server.submit()).json()["video"]["url"]).path
    cluster = Cluster(server.data_dir, **FAST, jobs__min_free_bytes=10**18)
    try:
        full = cluster.start_api()
        answer = full.http.post(f"/queue/{APP}", json=example())
        assert answer.status_code == 503
        assert "disk is full" in answer.json()["detail"]
        assert full.http.get(finished).status_code == 200
    finally:
        cluster.kill()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 8 MB, where this user may mount one."""
    with mounted(tmp_path / "disk", "8m"):
        yield tmp_path / "disk"


def test_a_disk_that_fills_up_while_rendering_fails_the_job_cleanly(
    small_disk: Path, start_server: Callable[..., Server]
) -> None:
    server = start_server(
        data_dir=small_disk, jobs__min_free_bytes=0, jobs__storage_retry_delay_s=0.2, renderer="fills_the_disk"
    )
    request_id = server.submit()
    failed = server.finish(request_id)
    assert failed.status_code == 503
    assert server.messages(request_id)[-1] == "The disk is full or cannot be written; trying again"
    assert "Attempt 3" in server.messages(request_id), "it is tried again before it is given up"
    assert not list((small_disk / "tmp").glob("*.mp4*"))
    assert not list(small_disk.rglob("files/**/*.mp4"))


def test_a_disk_that_is_full_when_a_video_is_stored_fails_the_job_cleanly(
    small_disk: Path, start_server: Callable[..., Server], tmp_path: Path
) -> None:
    data_dir = tmp_path / "data"
    data_dir.mkdir()
    (data_dir / "files").symlink_to(small_disk)
    server = start_server(
        data_dir=data_dir, jobs__storage_retry_s=1, jobs__storage_retry_delay_s=0.2, renderer="fills_the_disk"
    )
    assert server.finish(server.submit()).status_code == 503
    until(lambda: not any((data_dir / "tmp").iterdir()))
    assert not [path for path in small_disk.rglob("*") if path.is_file()]


def test_a_copy_that_does_not_fit_leaves_no_part(tmp_path: Path) -> None:
    """The same where nothing may be mounted: a limit on the size of files, and a source on another disk."""
    code = """
import resource, signal, sys
from pathlib import Path
from urllib.parse import urlsplit
from server.storage.local import LocalStorage
Path.replace = lambda *_: (_ for _ in ()).throw(OSError(18, "Invalid cross-device link"))
source, root = Path(sys.argv[1]), Path(sys.argv[2])
source.write_bytes(bytes(100_000))
storage = LocalStorage(root)
resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))
try:
    storage.put(source, storage.new_key("files", "x.mp4"))
except OSError:
    sys.exit(7)
"""
    command = [sys.executable, "-c", code, str(tmp_path / "source"), str(tmp_path / "root")]
    assert subprocess.run(command, cwd=ROOT, check=False).returncode == 7
    assert not [path for path in (tmp_path / "root" / "files").rglob("*") if path.is_file()]


def test_a_full_disk_is_waited_out(small_disk: Path, start_server: Callable[..., Server]) -> None:
    """The database cannot grow for a while: the job renders on, and its end is recorded when there is room."""
    server = start_server(data_dir=small_disk, jobs__min_free_bytes=0, renderer="waits_for_a_file")
    request_id = server.submit()
    until((small_disk / "renders").exists)
    worker = server.worker()["pid"]
    with filled(small_disk):
        assert server.http.post(f"/queue/{APP}", json=example()).status_code == 503
    (small_disk / "go").touch()
    assert server.finish(request_id).status_code == 200
    assert server.worker()["pid"] == worker


def test_sqlite_says_so_when_the_disk_is_full() -> None:
    with contextlib.closing(sqlite3.connect(":memory:")) as database:
        database.execute("PRAGMA max_page_count = 1")
        with pytest.raises(sqlite3.OperationalError) as full:
            database.execute("CREATE TABLE x (y)")
    assert is_outage(full.value)


def test_a_database_that_is_locked_for_too_long_is_a_503(server: Server) -> None:
    database = sqlite3.connect(server.data_dir / "hunyuan-custom.sqlite", isolation_level=None)
    database.execute("BEGIN IMMEDIATE")
    answer = server.http.post(f"/queue/{APP}", json=example())
    database.execute("ROLLBACK")
    database.close()
    assert answer.status_code == 503
    assert int(answer.headers["retry-after"]) >= 1
    assert server.finish(server.submit()).status_code == 200


def test_a_database_that_is_locked_for_a_moment_only_delays(server: Server) -> None:
    database = sqlite3.connect(server.data_dir / "hunyuan-custom.sqlite", isolation_level=None)
    database.execute("BEGIN IMMEDIATE")
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        submitting = pool.submit(server.submit)
        concurrent.futures.wait([submitting], timeout=1)
        assert not submitting.done()
        database.execute("ROLLBACK")
        request_id = submitting.result(timeout=60)
    database.close()
    assert server.finish(request_id).status_code == 200


def test_accepted_jobs_are_synced_to_disk(tmp_path: Path) -> None:
    from server.db.connection import create_engine

    engine = create_engine(f"sqlite:///{tmp_path / 'x.sqlite'}")
    with engine.connect() as connection:
        assert connection.exec_driver_sql("PRAGMA synchronous").scalar() == 2  # FULL
        assert connection.exec_driver_sql("PRAGMA journal_mode").scalar() == "wal"
    engine.dispose()
