"""What the headers of a submit do."""

import contextlib
import sqlite3
import threading
from collections.abc import Callable
from typing import Any

import pytest

from server.errors import BadRequest
from server.fal.submit_headers import Priority, SubmitOptions
from tests.harness.live_server import APP, Server, example, until


def test_headers_are_read() -> None:
    headers = {
        "x-fal-queue-priority": "LOW",
        "x-fal-request-timeout": "5.0",
        "x-fal-no-retry": "yes",
        "x-fal-store-io": "0",
        "x-fal-object-lifecycle-preference": '{"expiration_duration_seconds": 3600, "initial_acl": {}}',
        "idempotency-key": "k",
    }
    assert SubmitOptions.from_headers(headers) == SubmitOptions(
        priority=Priority.LOW,
        start_timeout_s=5.0,
        no_retry=True,
        store_io=False,
        media_ttl_s=3600.0,
        idempotency_key="k",
    )
    assert SubmitOptions.from_headers({}) == SubmitOptions()


@pytest.mark.parametrize("value", ["", "soon", "0", "0.1", "-1", "nan", "inf"])
def test_an_unreadable_timeout_is_refused(value: str) -> None:
    with pytest.raises(BadRequest):
        SubmitOptions.from_headers({"x-fal-request-timeout": value})


def _expiring_in(seconds: str) -> str:
    return f'{{"expiration_duration_seconds": {seconds}}}'


@pytest.mark.parametrize(
    "value",
    [
        "",
        "{",
        "[]",
        '"x"',
        "1e400",
        "true",
        "[" * 6000,
        *map(_expiring_in, ['"1"', "true", "-1", "0", "NaN", "9" * 400]),
    ],
    ids=lambda value: value[:40],
)
def test_an_unreadable_lifecycle_is_ignored(value: str) -> None:
    assert SubmitOptions.from_headers({"x-fal-object-lifecycle-preference": value}) == SubmitOptions()


def test_an_unreadable_header_of_the_others_changes_nothing(server: Server) -> None:
    headers = {
        "X-Fal-Queue-Priority": "urgent",
        "X-Fal-Runner-Hint": "gpu-7",
        "X-Fal-Object-Lifecycle-Preference": "[" * 6000,
    }
    assert server.finish(server.submit(**headers)).status_code == 200


@pytest.mark.parametrize("api", ["run", "queue"])
@pytest.mark.parametrize("header", [{"x-fal-request-timeout": "soon"}, {"idempotency-key": "k" * 256}])
def test_bad_headers_are_400_at_once(server: Server, api: str, header: dict[str, str]) -> None:
    answer = server.http.post(f"/{api}/{APP}", json=example(), headers=header)
    assert (answer.status_code, answer.json()["error_type"]) == (400, "bad_request")
    assert answer.headers["x-fal-error-type"] == "bad_request"


def test_a_request_that_does_not_start_in_time_is_504(server: Server) -> None:
    blocker = server.submit(example(prompt="WORKS_SLOWLY"))
    server.until_running(blocker)
    late = server.submit(**{"X-Fal-Request-Timeout": "0.2"})
    answer = server.finish(late)
    sync = server.http.post(f"/run/{APP}", json=example(), headers={"X-Fal-Request-Timeout": "0.2"})
    server.cancel(blocker)
    for late_answer in (answer, sync):
        assert (late_answer.status_code, late_answer.json()["error_type"]) == (504, "request_timeout")
        assert late_answer.headers["x-fal-request-timeout-type"] == "user"
        assert late_answer.headers["x-fal-error-type"] == "request_timeout"
    assert server.status(late)["error_type"] == "request_timeout"
    server.finish(blocker)


def test_a_start_in_time_is_not_a_limit_on_the_work(server: Server) -> None:
    assert server.finish(server.submit(example(num_inference_steps=30), **{"X-Fal-Request-Timeout": "30"})).is_success


def test_a_request_that_does_not_start_in_time_is_504_although_no_worker_runs(
    start_api: Callable[..., Server],
) -> None:
    api = start_api()
    assert api.finish(api.submit(**{"X-Fal-Request-Timeout": "0.2"})).status_code == 504


def test_a_full_queue_is_429_only_for_those_who_ask(server: Server) -> None:
    blocker = server.submit(example(prompt="WORKS_SLOWLY"))
    server.until_running(blocker)
    waiting = server.submit(**{"Idempotency-Key": "waits"})

    def submit(limit: str, **headers: str) -> int:
        query = {"fal_max_queue_length": limit}
        return server.http.post(f"/queue/{APP}", json=example(), params=query, headers=headers).status_code

    assert [submit(limit) for limit in ("0", "1", "100")] == [429, 200, 200]
    assert submit("0", **{"Idempotency-Key": "waits"}) == 200, "it is in the queue already"
    refused = server.http.post(f"/queue/{APP}", json=example(), params={"fal_max_queue_length": "0"})
    assert int(refused.headers["retry-after"]) >= 1
    assert submit("many") == 422
    server.cancel(blocker)
    server.finish(waiting)
    until(lambda: server.waiting() == 0)
    assert submit("0") == 200


def test_an_idempotency_key_makes_one_request(server: Server) -> None:
    key = {"Idempotency-Key": "a-key"}
    first = server.submit(**key)
    assert server.submit(**key) == first
    assert server.submit(**{"Idempotency-Key": "another-key"}) != first
    server.finish(first)
    assert server.submit(example(prompt="something else"), **key) == first
    sync = server.http.post(f"/run/{APP}", json=example(), headers=key)
    assert sync.json() == server.result(first).json()


def test_the_same_key_at_the_same_moment_makes_one_request(server: Server) -> None:
    made: list[str] = []
    together = threading.Barrier(8)

    def submit() -> None:
        together.wait()
        made.append(server.submit(**{"Idempotency-Key": "at-once"}))

    threads = [threading.Thread(target=submit) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(made) == 8
    assert len(set(made)) == 1
    server.finish(made[0])


def test_a_key_survives_a_kill(start_api: Callable[..., Server]) -> None:
    api = start_api()
    first = api.submit(**{"Idempotency-Key": "k"})
    api.process.kill()
    api.process.wait()
    assert start_api().submit(**{"Idempotency-Key": "k"}) == first


def _row(server: Server, request_id: str) -> dict[str, Any]:
    database = sqlite3.connect(server.data_dir / "hunyuan-custom.sqlite")
    database.row_factory = sqlite3.Row
    try:
        return dict(database.execute("SELECT * FROM request WHERE id = ?", [request_id]).fetchone())
    finally:
        database.close()


def test_store_io_0_forgets_the_input_and_keeps_the_result(start_server: Callable[..., Server]) -> None:
    server = start_server(retention__sweep_s=0.1)
    private = server.submit(example(prompt="a secret"), **{"X-Fal-Store-IO": "0"})
    plain = server.submit(example(prompt="no secret"))
    assert server.finish(private).status_code == 200
    assert server.finish(plain).status_code == 200
    assert _row(server, private)["input_json"] == "null"
    assert "no secret" in _row(server, plain)["input_json"]
    until(lambda: _row(server, private)["image_key"] is None)
    assert _row(server, private)["source_key"] is None
    assert _row(server, plain)["image_key"]
    inputs = [path for path in (server.data_dir / "inputs").rglob("*") if path.is_file()]
    assert len(inputs) == 2, "the image of the other request, as sent and as checked"
    assert server.http.get(server.result(private).json()["video"]["url"]).status_code == 200

    waiting = server.submit(example(prompt="WORKS_SLOWLY a secret"), **{"X-Fal-Store-IO": "0"})
    server.cancel(waiting)
    server.finish(waiting)
    assert _row(server, waiting)["input_json"] == "null"

    short = {"X-Fal-Object-Lifecycle-Preference": '{"expiration_duration_seconds": 3600}'}
    brief = server.submit(**short)
    url = server.finish(brief).json()["video"]["url"]
    assert server.http.get(url).status_code == 200
    with contextlib.closing(sqlite3.connect(server.data_dir / "hunyuan-custom.sqlite", timeout=30)) as database:
        database.execute("UPDATE request SET finished_at = finished_at - 3601 WHERE id IN (?, ?)", [brief, plain])
        database.commit()
    until(lambda: server.http.get(url).status_code == 410)
    assert server.http.get(server.result(plain).json()["video"]["url"]).status_code == 200


@pytest.mark.parametrize(("header", "attempts"), [({"X-Fal-No-Retry": "1"}, 1), ({}, 3)])
def test_no_retry_is_one_attempt(server: Server, header: dict[str, str], attempts: int) -> None:
    request_id = server.submit(example(prompt="EXITS"), **header)
    answer = server.finish(request_id)
    assert (answer.status_code, answer.json()["error_type"]) == (503, "runner_disconnected")
    log = [line["message"] for line in server.status(request_id, logs=True)["logs"]]
    assert sum(line.startswith("Generator lost") for line in log) == attempts
    server.until_ready_again()
