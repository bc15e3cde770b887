"""SIGTERM, Ctrl-C and a second signal: which processes stop, which job finishes, and that none counts a fault."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from server.bench.deployment import Deployment
from server.db.connection import create_engine
from server.jobs.dbos_queues import dbos_client
from server.jobs.job import Job, Status
from server.jobs.job_store import JobStore
from server.jobs.worker_registry import WorkerRegistry
from tests.harness.live_server import FAST, ROOT, Server, example, launch, until
from tests.harness.stopped_engine import PUBLISH_NEVER_STARTS, engine_that_ignores, publishes, value

GRACE_S = 60.0


@pytest.fixture
def waiting(tmp_path: Path) -> Iterator[tuple[Server, str]]:
    """A server with a long grace, as the leader of a process group, and a job that runs until `go` is there."""
    server = launch(tmp_path, own_group=True, **FAST, jobs__shutdown_grace_s=GRACE_S)
    request_id = server.submit(example(prompt="WAITS"))
    until((tmp_path / "renders").exists)
    yield server, request_id
    server.stop()


def has_ended(process: psutil.Process) -> bool:
    try:
        return process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def left_behind(data_dir: Path, request_id: str) -> Job:
    database = create_engine(f"sqlite:///{data_dir / 'hunyuan-custom.sqlite'}")
    job = JobStore(database, dbos_client(database)).get(request_id)
    database.dispose()
    assert job is not None
    return job


def state_in_words(data_dir: Path) -> str:
    database = create_engine(f"sqlite:///{data_dir / 'hunyuan-custom.sqlite'}")
    (worker,) = WorkerRegistry(database).all()
    database.dispose()
    return worker.state


def heartbeat(data_dir: Path) -> object:
    return value(data_dir, "SELECT heartbeat_at FROM worker")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_one_signal_to_all_processes_lets_the_job_finish(
    waiting: tuple[Server, str], tmp_path: Path, number: signal.Signals
) -> None:
    """What Ctrl-C does, and a service manager: every process gets it, and the supervisor passes its own on."""
    server, request_id = waiting
    api, worker = psutil.Process(server.pid_of("api")), psutil.Process(server.worker()["pid"])
    os.killpg(server.process.pid, number)
    until(lambda: has_ended(api))
    assert worker.is_running()
    until(lambda: state_in_words(tmp_path) == "stopped")  # it makes one more video, and takes no more
    with engine_that_ignores(tmp_path, PUBLISH_NEVER_STARTS):
        (tmp_path / "go").touch()
        until(lambda: publishes(tmp_path) == 1)
        for _ in range(3):  # it waits for its video to be published
            before = heartbeat(tmp_path)
            until(lambda last=before: heartbeat(tmp_path) != last)
    assert server.process.wait(60) == 0
    job = left_behind(tmp_path, request_id)
    assert (job.response_status, job.attempt, job.faults) == (200, 1, 0), "published as well"


def test_a_second_signal_ends_the_grace(waiting: tuple[Server, str], tmp_path: Path) -> None:
    server, request_id = waiting
    api = psutil.Process(server.pid_of("api"))
    server.process.send_signal(signal.SIGTERM)
    until(lambda: has_ended(api))
    server.process.send_signal(signal.SIGTERM)
    assert server.process.wait(60) == 0
    job = left_behind(tmp_path, request_id)
    assert (job.status, job.attempt, job.faults) == (Status.IN_QUEUE, 1, 0)


def test_a_grace_that_runs_out_gives_the_job_back(start_server: Callable[..., Server], tmp_path: Path) -> None:
    server = start_server(jobs__shutdown_grace_s=0.5)
    request_id = server.submit(example(prompt="WAITS"))
    until((tmp_path / "renders").exists)
    assert server.stop() == 0
    job = left_behind(tmp_path, request_id)
    assert (job.status, job.attempt, job.faults) == (Status.IN_QUEUE, 1, 0)


def test_a_cancelled_job_does_not_go_back(start_server: Callable[..., Server], tmp_path: Path) -> None:
    server = start_server(generator__cancel_grace_s=GRACE_S)
    request_id = server.submit(example(prompt="HANGS"))
    server.until_running(request_id)
    server.cancel(request_id)
    assert server.stop() == 0
    assert left_behind(tmp_path, request_id).response_status == 499


def test_a_second_server_on_the_same_data_is_refused(server: Server) -> None:
    for command in ("serve", "worker"):
        refused = Deployment(server.data_dir, {}).command(command)
        assert refused.returncode == 2
        assert "worker_id: a worker named local is running on" in refused.stderr


def test_a_child_whose_parent_is_gone_already_ends() -> None:
    code = "from server.parent_death import die_with_parent; die_with_parent(1)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False, timeout=60).returncode == 1
