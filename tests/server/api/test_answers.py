"""The small print of every answer: ids, error types, billable units, and what is not there."""

from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from tests.harness.live_server import APP, Server, example, until


def test_error_headers_are_fals(server: Server) -> None:
    invalid = server.http.post(f"/run/{APP}", json={})
    assert (invalid.status_code, invalid.headers["x-fal-billable-units"]) == (422, "0")
    nowhere = server.http.post(f"/run/{APP}/stream", json={})
    assert (nowhere.status_code, nowhere.headers["x-fal-billable-units"]) == (404, "0")
    early = server.submit(example(prompt="WORKS_SLOWLY"))
    unfinished = server.result(early)
    assert (unfinished.status_code, unfinished.headers["x-fal-error-type"]) == (400, "bad_request")
    server.cancel(early)
    cancelled = server.finish(early)
    assert (cancelled.status_code, cancelled.headers["x-fal-error-type"]) == (499, "client_cancelled")
    assert cancelled.json() == {"detail": "Request cancelled by the client.", "error_type": "client_cancelled"}
    raised = server.finish(server.submit(example(prompt="RAISES")))
    assert raised.headers["x-fal-retryable"] == "false"
    good = server.http.post(f"/run/{APP}", json=example())
    assert (good.status_code, good.headers["x-fal-billable-units"]) == (200, "1")
    for answer in (invalid, nowhere, unfinished, cancelled, raised, good):
        assert answer.headers["content-type"].startswith("application/json")
        assert len(answer.headers["x-fal-request-id"]) == 36


@pytest.mark.parametrize("suffix", ["", "/", "/response", "/response/"])
def test_a_failed_request_answers_its_own_error_everywhere(server: Server, suffix: str) -> None:
    request_id = server.http.post(f"/queue/{APP}", json={}).json()["request_id"]
    answer = server.http.get(f"/queue/{APP}/requests/{request_id}{suffix}")
    assert (answer.status_code, answer.headers["x-fal-request-id"]) == (422, request_id)
    assert server.status(request_id)["status"] == "COMPLETED"


@pytest.mark.parametrize(("value", "listed"), [("1", True), ("true", True), ("yes", True), ("0", False), ("", False)])
def test_logs_are_a_list_or_null(server: Server, value: str, listed: bool) -> None:
    request_id = server.http.post(f"/queue/{APP}", json={}).json()["request_id"]
    body = server.http.get(f"/queue/{APP}/requests/{request_id}/status", params={"logs": value}).json()
    assert body["logs"] == ([] if listed else None)


def test_there_is_no_realtime(server: Server) -> None:
    upgrade = {"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13"}
    upgrade["Sec-WebSocket-Key"] = "dGhlIHNhbXBsZSBub25jZQ=="
    answer = server.http.get(f"/run/{APP}/realtime", headers=upgrade)
    assert (answer.status_code, answer.json()) == (404, {"detail": "Path /realtime not found"})
    assert answer.headers["x-fal-request-id"]


def test_a_sync_caller_with_a_key_who_hangs_up_can_come_back(server: Server) -> None:
    """Without a key the job is cancelled, since it could not be found again."""
    blocker = server.submit(example(prompt="WORKS_SLOWLY"))
    server.until_running(blocker)
    key = {"Idempotency-Key": "comes-back"}
    with pytest.raises(httpx.ReadTimeout):
        server.http.post(f"/run/{APP}", json=example(seed=8), headers=key, timeout=httpx.Timeout(0.5))
    again = ThreadPoolExecutor(1).submit(server.http.post, f"/run/{APP}", json=example(seed=8), headers=key)
    server.cancel(blocker)
    answer = again.result()
    assert (answer.status_code, answer.json()["seed"]) == (200, 8)


def test_a_sync_caller_who_hangs_up_in_the_queue_leaves_no_job(server: Server) -> None:
    blocker = server.submit(example(prompt="WORKS_SLOWLY"))
    server.until_running(blocker)

    with ThreadPoolExecutor(1) as pool, httpx.Client(base_url=server.url, trust_env=False, timeout=60) as caller:
        gone = pool.submit(caller.post, f"/run/{APP}", json=example(), timeout=httpx.Timeout(2))
        until(lambda: server.waiting() == 1)
        with pytest.raises(httpx.ReadTimeout):
            gone.result()
    until(lambda: server.waiting() == 0)
    server.cancel(blocker)
    server.finish(blocker)
