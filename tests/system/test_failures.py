"""A generator that fails, fails one request: the next one runs."""

import os
import signal
from collections.abc import Callable
from pathlib import Path

import httpx
import psutil
import pytest

from tests.harness.live_server import APP, Server, example, until


def test_a_generator_that_raises_fails_that_request_only(server: Server) -> None:
    generator = server.worker()["generator_pid"]
    failed, after = server.submit(example(prompt="RAISES")), server.submit()
    answer = server.finish(failed)
    assert answer.status_code == 500
    assert answer.json()["detail"][0]["type"] == "internal_server_error"
    assert "secret" not in answer.text
    status = server.status(failed, logs=True)
    assert status["error_type"] == "internal_server_error"
    assert "secret" not in str(status)
    assert server.finish(after).status_code == 200
    assert server.worker()["generator_pid"] == generator, "the process is well and goes on"


@pytest.mark.parametrize("fault", ["EXITS", "IS_KILLED"])
def test_a_generator_that_dies_is_tried_three_times_and_fails_that_request_only(server: Server, fault: str) -> None:
    failed, after = server.submit(example(prompt=fault)), server.submit()
    answer = server.finish(failed)
    lost = [line for line in server.status(failed, logs=True)["logs"] if "Generator lost" in line["message"]]
    assert len(lost) == 3
    assert (answer.status_code, answer.json()["error_type"]) == (503, "runner_disconnected")
    assert answer.headers["x-fal-error-type"] == "runner_disconnected"
    assert server.finish(after).status_code == 200
    server.until_ready_again()


def test_a_generator_that_falls_silent_is_killed(start_server: Callable[..., Server]) -> None:
    server = start_server(generator__stall_timeout_s=5)
    failed, after = server.submit(example(prompt="HANGS")), server.submit()
    assert server.finish(failed).status_code == 504
    assert server.finish(after).status_code == 200


def test_sync_run_answers_the_output_itself(server: Server) -> None:
    answer = server.http.post(f"/{APP}", json=example(seed=3))
    assert answer.status_code == 200
    assert set(answer.json()) == {"video", "seed"}
    assert server.result(answer.headers["x-fal-request-id"]).json() == answer.json()


def test_a_sync_caller_who_hangs_up_cancels_the_job(server: Server) -> None:
    with pytest.raises(httpx.ReadTimeout):
        server.http.post(f"/run/{APP}", json=example(prompt="WORKS_SLOWLY"), timeout=httpx.Timeout(1.5))
    assert server.finish(server.submit()).status_code == 200


def test_weights_that_are_missing_keep_jobs_waiting_until_they_are_there(
    start_server: Callable[..., Server], tmp_path: Path
) -> None:
    server = start_server(renderer="cannot_load", ready=False)
    until(lambda: "hunyuan-custom weights prepare" in server.http.get("/health/ready").text)
    assert server.http.get("/health/ready").status_code == 503
    assert server.http.get("/health/live").status_code == 200
    waiting = server.submit()
    assert server.status(waiting)["status"] == "IN_QUEUE"
    (tmp_path / "weights.safetensors").touch()
    assert server.finish(waiting).status_code == 200


def test_a_killed_api_loses_nothing_and_comes_back(server: Server) -> None:
    waiting = [server.submit(example(prompt="WORKS_SLOWLY")), server.submit()]
    api = psutil.Process(server.pid_of("api"))
    api.kill()
    api.wait()  # its connections are closed: the client makes a new one
    server.cancel(waiting[0])  # waits in the backlog of the socket until the new API takes it
    assert server.finish(waiting[1]).status_code == 200


def test_a_killed_worker_takes_its_generator_along_and_its_job_runs_again(server: Server) -> None:
    running = server.submit(example(prompt="WORKS_SLOWLY"))
    server.until_running(running)
    worker = server.worker()
    os.kill(worker["pid"], signal.SIGKILL)
    until(lambda: not psutil.pid_exists(worker["generator_pid"]))
    until(lambda: "Attempt 2" in server.messages(running))
    server.cancel(running)
    assert server.finish(running).status_code == 499


def test_the_supervisors_death_ends_every_process(start_server: Callable[..., Server]) -> None:
    server = start_server()
    family = psutil.Process(server.process.pid).children(recursive=True)
    assert len(family) == 3
    server.process.kill()
    _, alive = psutil.wait_procs(family, timeout=30)
    assert not alive
