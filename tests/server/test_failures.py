"""A generator that fails, fails one request: the next one runs."""

import logging
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import httpx
import psutil
import pytest

from tests.live_server import APP, Server, example, until

logger = logging.getLogger(__name__)  # `pytest --log-cli-level=INFO` shows what was measured


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
    assert not any("Attempt" in line["message"] for line in status["logs"]), "the same request would fail again"
    assert server.finish(after).status_code == 200
    assert server.worker()["generator_pid"] == generator, "the process is well and goes on"


@pytest.mark.parametrize("fault", ["EXITS", "IS_KILLED", "STOPS_MID_SENTENCE"])
def test_a_generator_that_dies_is_tried_three_times_and_fails_that_request_only(server: Server, fault: str) -> None:
    failed, after = server.submit(example(prompt=fault)), server.submit()
    answer = server.finish(failed)
    lost = [line for line in server.status(failed, logs=True)["logs"] if "Generator lost" in line["message"]]
    assert len(lost) == 3
    assert (answer.status_code, answer.json()["error_type"]) == (503, "runner_disconnected")
    assert answer.headers["x-fal-error-type"] == "runner_disconnected"
    assert server.finish(after).status_code == 200


def test_a_generator_that_falls_silent_is_killed_and_the_job_tried_again(server: Server) -> None:
    once, always = server.submit(example(prompt="HANGS_ONCE")), server.submit(example(prompt="HANGS"))
    assert server.finish(once).status_code == 200
    lines = [line["message"] for line in server.status(once, logs=True)["logs"]]
    assert "Attempt 2" in lines
    assert any(line.startswith("Generator stalled: no progress for 3 s") for line in lines)
    assert server.finish(always).status_code == 504
    stalls = [line for line in server.status(always, logs=True)["logs"] if "stalled" in line["message"]]
    assert len(stalls) == 3


def test_who_wants_no_retry_gets_none(server: Server) -> None:
    hangs, dies = (
        server.submit(example(prompt=fault), **{"x-fal-no-retry": "1"}) for fault in ("HANGS_ONCE", "IS_KILLED")
    )
    assert server.finish(hangs).status_code == 504
    assert server.finish(dies).status_code == 503


def test_a_request_that_kills_its_worker_delays_the_others_and_nothing_more(
    start_server: Callable[..., Server],
) -> None:
    server = start_server()
    before, poison, after = (server.submit(example(prompt=word)) for word in ("one", "KILLS_THE_WORKER", "two"))
    assert server.finish(before).status_code == 200
    answer = server.finish(poison)
    assert (answer.status_code, answer.json()["error_type"]) == (503, "runner_disconnected")
    assert server.finish(after).status_code == 200


def test_the_first_block_has_a_limit_of_its_own(start_server: Callable[..., Server]) -> None:
    server = start_server(generator__first_block_timeout_s=1, generator__stall_timeout_s=60, jobs__max_attempts=1)
    stuck = server.submit(example(prompt="NEVER_STARTS"))
    assert server.finish(stuck).status_code == 504
    assert any("no progress for 1 s" in line["message"] for line in server.status(stuck, logs=True)["logs"])


def test_a_model_that_does_not_load_in_time_is_given_up(start_server: Callable[..., Server]) -> None:
    server = start_server(generator__load_timeout_s=1, renderer="loads_for_ever", ready=False)
    until(lambda: "the model did not load within 1 s" in server.http.get("/health/ready").text)
    assert server.http.get("/health/ready").status_code == 503


def test_sync_run_answers_the_output_itself(server: Server) -> None:
    answer = server.http.post(f"/{APP}", json=example(seed=3))
    assert answer.status_code == 200
    assert set(answer.json()) == {"video", "seed"}
    assert server.result(answer.headers["x-fal-request-id"]).json() == answer.json()


def test_a_sync_caller_who_hangs_up_cancels_the_job(server: Server) -> None:
    with pytest.raises(httpx.ReadTimeout):
        server.http.post(f"/run/{APP}", json=example(prompt="WORKS_SLOWLY"), timeout=httpx.Timeout(1.5))
    assert server.finish(server.submit(), timeout_s=10).status_code == 200


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


def test_a_killed_api_loses_nothing_and_comes_back(start_server: Callable[..., Server]) -> None:
    server = start_server()
    waiting = [server.submit(example(prompt="WORKS_SLOWLY")), server.submit()]
    (api,) = [child for child in psutil.Process(server.process.pid).children() if "api" in child.cmdline()]
    api.kill()
    api.wait()  # its connections are closed
    server.cancel(waiting[0])  # waits in the backlog of the socket until the new API takes it
    assert server.finish(waiting[1]).status_code == 200


def test_a_killed_worker_takes_its_generator_along_and_its_job_runs_again(
    start_server: Callable[..., Server], tmp_path: Path
) -> None:
    server = start_server()
    running = server.submit(example(prompt="WORKS_SLOWLY"))
    server.until_running(running)
    (image,) = (tmp_path / "inputs").rglob(f"{running}.png")
    worker = server.worker()
    os.kill(worker["pid"], signal.SIGKILL)
    killed = time.monotonic()
    until(lambda: not psutil.pid_exists(worker["generator_pid"]), timeout_s=5)
    until(lambda: "Attempt 2" in _messages(server, running))
    logger.info("worker_recovery_s: %.2f", time.monotonic() - killed)
    assert "The worker was lost" in _messages(server, running)
    assert list((tmp_path / "inputs").rglob(f"{running}.png")) == [image], "prepared once"
    server.cancel(running)
    assert server.finish(running).status_code == 499


def _messages(server: Server, request_id: str) -> list[str]:
    return [line["message"] for line in server.status(request_id, logs=True)["logs"] or []]


def test_jobs_survive_a_restart_of_everything(start_server: Callable[..., Server]) -> None:
    first = start_server()
    running, waiting = first.submit(example(prompt="WORKS_SLOWLY")), first.submit(example(seed=11))
    first.until_running(running)
    assert first.stop() == 0
    second = start_server()
    until(lambda: second.status(running)["status"] == "IN_PROGRESS")
    second.cancel(running)
    assert second.finish(waiting).json()["seed"] == 11


def test_the_supervisors_death_ends_every_process(start_server: Callable[..., Server]) -> None:
    server = start_server()
    server.until_running(server.submit(example(prompt="WORKS_SLOWLY")))
    family = psutil.Process(server.process.pid).children(recursive=True)
    assert len(family) == 3
    server.process.kill()
    killed = time.monotonic()
    _, alive = psutil.wait_procs(family, timeout=5)
    assert not alive
    logger.info("orphans_gone_s: %.2f", time.monotonic() - killed)
