"""The queue over HTTP: submit, status, result, cancel, download."""

import re
import uuid

import pytest

from tests.harness.harmless import harmless
from tests.harness.live_server import APP, Server, example, until
from tests.harness.raw_http import connect, read_all
from tests.harness.video_probe import probe

NOT_FOUND = {"detail": "Request not found", "status": "NOT_FOUND"}


def test_a_request_becomes_a_video(server: Server) -> None:
    request_id = server.submit(example(seed=7, fps=20, aspect_ratio="9:16"))
    answer = server.finish(request_id)

    assert answer.status_code == 200
    assert answer.headers["x-fal-request-id"] == request_id
    output = answer.json()
    assert output["seed"] == 7
    video = server.http.get(output["video"]["url"])
    assert video.headers["content-type"] == "video/mp4"
    assert len(video.content) == output["video"]["file_size"]
    path = server.data_dir / "downloaded.mp4"
    path.write_bytes(video.content)
    described = probe(path)
    assert "h264" in described
    assert "yuv420p" in described
    assert "512x896" in described
    assert "20 fps" in described
    assert re.findall(r"frame= *(\d+)", described)[-1] == "81"


def test_submit_answers_what_the_clients_read(server: Server) -> None:
    answer = server.http.post(f"/queue/{APP}", json=example())
    body = answer.json()
    base = f"{server.url}/queue/{APP}/requests/{body['request_id']}"
    assert uuid.UUID(body["request_id"]).version == 4
    assert body["gateway_request_id"] == body["request_id"]
    assert (body["response_url"], body["status_url"], body["cancel_url"]) == (base, f"{base}/status", f"{base}/cancel")
    assert (body["status"], body["logs"], body["metrics"]) == ("IN_QUEUE", None, {})


def test_a_seed_is_drawn_once_when_none_is_given(server: Server) -> None:
    drawn = {server.finish(server.submit()).json()["seed"] for _ in range(2)}
    assert len(drawn) == 2
    assert all(0 <= seed < 2**32 for seed in drawn)


def test_seeds_keep_all_64_bits(server: Server) -> None:
    for seed in (2**64 - 1, -(2**63)):
        assert server.finish(server.submit(example(seed=seed))).json()["seed"] == seed


def test_status_tells_position_then_progress_then_the_end(server: Server) -> None:
    blocker = server.submit(example(prompt="WORKS_SLOWLY"))
    server.until_running(blocker)
    first, second = server.submit(), server.submit()
    assert [server.status(waiting)["queue_position"] for waiting in (first, second)] == [0, 1]
    assert server.http.get(f"/queue/{APP}/requests/{first}/status").status_code == 202
    assert server.status(blocker)["logs"] is None
    until(lambda: any(line["message"].startswith("block") for line in server.status(blocker, logs=True)["logs"]))

    assert server.cancel(blocker).json() == {"status": "CANCELLATION_REQUESTED"}
    server.finish(second)
    done = server.status(second, logs=True)
    assert done["metrics"]["inference_time"] > 0
    steps = [line for line in done["logs"] if line["message"].startswith("Denoising step")]
    assert len(steps) == 10
    assert {"message", "level", "source", "timestamp"} == set(steps[0])
    assert server.http.get(f"/queue/{APP}/requests/{second}/status").status_code == 200
    assert server.finish(first).status_code == 200, "published beside the second, in either order"


def test_a_low_priority_request_waits_behind_normal_ones(server: Server) -> None:
    blocker = server.submit(example(prompt="WORKS_SLOWLY"))
    server.until_running(blocker)
    low = server.submit(**{"x-fal-queue-priority": "low"})
    normal = server.submit()
    assert [server.status(waiting)["queue_position"] for waiting in (low, normal)] == [1, 0]
    images = server.data_dir / "inputs"
    until(lambda: all(any(images.rglob(f"{waiting}.png")) for waiting in (low, normal)))  # both are in the GPU's line
    server.cancel(blocker)
    server.finish(low)
    finished = [server.status(request, logs=True)["logs"][-1]["timestamp"] for request in (normal, low)]
    assert finished == sorted(finished)


def test_a_result_asked_for_too_early_is_400(server: Server) -> None:
    running = server.submit(example(prompt="WORKS_SLOWLY"))
    answer = server.result(running)
    assert (answer.status_code, answer.json()["detail"]) == (400, "Request is still in progress")
    server.cancel(running)
    server.finish(running)


@pytest.mark.parametrize("suffix", ["", "/status", "/status/stream", "/response", "/cancel"])
@pytest.mark.parametrize("request_id", ["0b7f8e8a-0000-4000-8000-000000000000", "not-a-uuid", "%00", "x" * 36])
def test_unknown_and_malformed_ids_are_the_same_404(server: Server, request_id: str, suffix: str) -> None:
    method = "PUT" if suffix == "/cancel" else "GET"
    with harmless(server):
        answer = server.http.request(method, f"/queue/{APP}/requests/{request_id}{suffix}")
    assert (answer.status_code, answer.json()) == (404, NOT_FOUND)


def test_cancelling_a_waiting_request_ends_it_and_it_never_runs(server: Server) -> None:
    blocker = server.submit(example(prompt="WORKS_SLOWLY"))
    server.until_running(blocker)
    waiting = server.submit()
    cancelled = server.cancel(waiting)
    assert (cancelled.status_code, cancelled.json()) == (202, {"status": "CANCELLATION_REQUESTED"})
    status = server.status(waiting, logs=True)
    assert (status["status"], status["error_type"], status["logs"]) == ("COMPLETED", "client_cancelled", [])
    server.cancel(blocker)
    server.finish(server.submit())
    assert server.status(waiting, logs=True)["logs"] == []
    answer = server.result(waiting)
    assert (answer.status_code, answer.json()["error_type"]) == (499, "client_cancelled")


def test_cancelling_a_running_request_frees_the_generator_at_once(server: Server) -> None:
    running = server.submit(example(prompt="WORKS_SLOWLY"))
    server.until_running(running)
    generator = server.worker()["generator_pid"]
    assert server.cancel(running).status_code == 202
    assert server.finish(running).status_code == 499
    assert server.finish(server.submit()).status_code == 200
    assert server.worker()["generator_pid"] == generator, "a generator that reacts is not killed"


def test_a_generator_that_ignores_a_cancel_is_replaced(server: Server) -> None:
    running = server.submit(example(prompt="HANGS"))
    server.until_running(running)
    generator = server.worker()["generator_pid"]
    server.cancel(running)
    assert server.finish(running).status_code == 499
    assert server.finish(server.submit()).status_code == 200
    assert server.worker()["generator_pid"] != generator


def test_a_finished_request_cannot_be_cancelled_and_keeps_its_result(server: Server) -> None:
    finished = server.submit()
    server.finish(finished)
    answer = server.cancel(finished)
    assert (answer.status_code, answer.json()) == (400, {"status": "ALREADY_COMPLETED"})
    assert server.result(finished).status_code == 200


def test_downloads_have_ranges(server: Server) -> None:
    url = server.finish(server.submit()).json()["video"]["url"]
    whole = server.http.get(url)
    part = server.http.get(url, headers={"Range": "bytes=10-19"})
    assert (part.status_code, part.content) == (206, whole.content[10:20])
    assert part.headers["content-range"] == f"bytes 10-19/{len(whole.content)}"
    for value in (f"bytes={len(whole.content)}-", "bytes=9-3", "bytes=a-b", "pages=1-2"):
        refused = server.http.get(url, headers={"Range": value})
        assert (refused.status_code, refused.json()["error_type"]) == (416, "bad_request")
        assert refused.headers["content-range"] == f"bytes */{len(whole.content)}"
    assert whole.headers["accept-ranges"] == "bytes"
    assert whole.headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize(
    "path",
    [
        "files/../hunyuan-custom.sqlite",
        "files/aa/%2e%2e/x.mp4",
        "files/aa/" + "a" * 32 + "/%2fetc%2fpasswd",
        "files/aa/" + "a" * 32 + "/x.mp4",
        "files/aa/" + "a" * 32 + "/%00",
        "inputs/aa/" + "a" * 32 + "/x.png",
    ],
)
def test_nothing_but_videos_can_be_downloaded(server: Server, path: str) -> None:
    with harmless(server):
        assert server.http.get(f"/{path}").status_code == 404


@pytest.mark.parametrize(
    "path",
    [
        "/files/../hunyuan-custom.sqlite",
        "/files/aa/../../hunyuan-custom.sqlite",
        "/cdn/files/../../../etc/passwd",
        "/cdn/files/aa/%2e%2e/%2e%2e/hunyuan-custom.sqlite",
        "/files/..%2f..%2fetc/passwd",
        "//etc/passwd",
        "/files//etc/passwd",
        "/files/\\..\\etc\\passwd/x",
        "/files/aa/" + "a" * 32 + "/..",
    ],
)
def test_dots_and_slashes_lead_nowhere_as_they_are_sent(server: Server, path: str) -> None:
    """Over a socket: a client would tidy such a path up before it sends it."""
    with harmless(server), connect(server) as connection:
        connection.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
        head, _, body = read_all(connection).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 404 ")
    assert b"application/json" in head
    assert b"SQLite" not in body
    assert b"root:" not in body
