"""Several workers of one `serve` on SQLite: jobs run side by side, and one of them may die."""

from collections.abc import Callable
from pathlib import Path

import psutil

from server.bench.waiting import child_processes
from tests.harness.live_server import Server, example, until


def test_two_workers_of_one_server(start_server: Callable[..., Server], tmp_path: Path) -> None:
    server = start_server(generator__replicas=2)
    until(lambda: [row["state"] for row in server.http.get("/health/ready").json()["workers"]] == ["ready"] * 2)
    workers = {row["id"]: row["pid"] for row in server.http.get("/health/ready").json()["workers"]}
    assert set(workers) == {"local", "local-1"}
    assert set(workers.values()) == child_processes(server.process.pid, "worker")

    renders = tmp_path / "renders"
    jobs = [server.submit(example(prompt="WAITS")) for _ in range(2)]
    until(lambda: renders.exists() and len(renders.read_text().split()) == 2)  # side by side
    psutil.Process(workers["local-1"]).kill()
    until(lambda: len(renders.read_text().split()) == 3)
    (tmp_path / "go").touch()
    assert [server.finish(job).status_code for job in jobs] == [200, 200]
    attempts = ["Attempt 2" in server.messages(job) for job in jobs]
    assert sorted(attempts) == [False, True], "the job of the other worker was not disturbed"
    assert psutil.pid_exists(workers["local"])
    assert server.stop() == 0
    assert not any(map(psutil.pid_exists, workers.values()))
