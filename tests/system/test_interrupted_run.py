"""A run of the tests that is killed leaves no process behind."""

import subprocess
import sys
from pathlib import Path

import psutil

from tests.harness.client_programs import clean_environment
from tests.harness.live_server import ROOT, until

RUN = """
import time
from pathlib import Path
from tests.harness.cluster import Cluster
from tests.harness.live_server import FAST

def test_that_never_ends(start_server, postgres, tmp_path):
    server = start_server()
    with Cluster(tmp_path, **FAST, database_url=postgres.new_database()) as cluster:
        cluster.command("migrate")
        cluster.start_worker("another")
        cluster.start_api()
        Path(__file__).with_name("all is up").touch()
        time.sleep(600)
"""


def command_line(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.NoSuchProcess:  # Postgres serves each connection by a process of its own
        return ""


def test_a_killed_run_leaves_no_process(tmp_path: Path) -> None:
    (tmp_path / "test_run.py").write_text(RUN)
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    command = [sys.executable, "-m", "pytest", "-q", "-n", "1", "-p", "tests.conftest", "-p", "no:cacheprovider"]
    run = subprocess.Popen(
        [*command, f"--basetemp={tmp_path / 'base'}", tmp_path / "test_run.py"],
        cwd=tmp_path,
        env=clean_environment(PYTHONPATH=str(ROOT)),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        until(lambda: (tmp_path / "all is up").exists() or run.poll() is not None, timeout_s=240)
        assert run.poll() is None
        started = psutil.Process(run.pid).children(recursive=True)
        commands = [command_line(process) for process in started]
        for kind in ("server serve", "server api", "server worker", "child.process", "postgres -D", "postgres: "):
            assert any(kind in command for command in commands), kind
    finally:
        run.kill()
        run.wait()
    _, left = psutil.wait_procs(started, timeout=60)
    assert not [command_line(process) for process in left]
