"""HEAD is answered wherever GET is, with the same status and headers and without a body."""

import shutil
import subprocess
import time
from collections.abc import Iterator

import httpx
import pytest

from tests.harness.client_programs import missing
from tests.harness.live_server import APP, Server, example, photo_uri
from tests.harness.raw_http import connect, read_all

QUEUE = f"/queue/{APP}/requests"


@pytest.fixture(scope="module")
def examples(server: Server) -> Iterator[dict[str, str]]:
    """A value for every parameter in a path: of a finished request, its video, and an upload."""
    request_id = server.submit(example(image_url=photo_uri()))
    video = httpx.URL(server.finish(request_id).json()["video"]["url"]).path
    described = {"content_type": "image/png", "file_name": "a.png"}
    urls = server.http.post("/rest/storage/upload/initiate", json=described).json()
    server.http.put(urls["upload_url"], content=b"\x89PNG\r\n\x1a\n").raise_for_status()
    yield {
        "request_id": request_id,
        "/files/{shard}/{token}/{name}": video,
        "/cdn/files/{shard}/{token}/{name}": httpx.URL(urls["file_url"]).path,
    }


def paths_of(server: Server, method: str, examples: dict[str, str]) -> list[str]:
    """All paths of the schema that have this method."""
    paths = server.http.get("/openapi.json").json()["paths"]
    templates = [path for path, operations in paths.items() if method in operations]
    return [examples.get(path, path.replace("{request_id}", examples["request_id"])) for path in templates]


def compared(answer: httpx.Response) -> tuple[int, dict[str, str]]:
    own = {"date", "transfer-encoding"}  # the length of a stream is not known
    if "requests/" not in answer.url.path or not answer.is_success:
        own.add("x-fal-request-id")
    if answer.url.path in {"/metrics", "/admin/overview"}:
        own.add("content-length")  # figures of the moment
    return answer.status_code, {name: value for name, value in answer.headers.items() if name not in own}


def test_wherever_get_is(server: Server, examples: dict[str, str]) -> None:
    paths = paths_of(server, "get", examples)
    assert len(paths) > 8
    for path in [*paths, "/openapi.json", "/nothing", f"{QUEUE}/unknown", f"{QUEUE}/unknown/status/stream"]:
        headers = {"x-fal-target-url": f"https://queue.fal.run/{APP}/requests/{examples['request_id']}/status"}
        head = server.http.head(path, headers=headers)
        assert compared(head) == compared(server.http.get(path, headers=headers)), path
        assert head.content == b""


@pytest.mark.parametrize(
    "spread", [{}, {"Range": "bytes=4-7"}, {"Range": "bytes=0-1,4-7"}, {"Range": "bytes=99999999-"}]
)
def test_ranges_of_a_video(server: Server, examples: dict[str, str], spread: dict[str, str]) -> None:
    path = examples["/files/{shard}/{token}/{name}"]
    head, got = server.http.head(path, headers=spread), server.http.get(path, headers=spread)
    for answer in (head, got):
        kind = answer.headers["content-type"]
        answer.headers["content-type"] = kind.partition("boundary=")[0]  # drawn for each answer
    assert compared(head) == compared(got)
    assert int(head.headers["content-length"]) == len(got.content)


def test_a_connection_goes_on_after_it(server: Server, examples: dict[str, str]) -> None:
    """Nothing of a body is left on the wire, also where the length of the body is not known."""
    paths = [
        f"{QUEUE}/{examples['request_id']}/status/stream",
        examples["/files/{shard}/{token}/{name}"],
        "/health/live",
    ]
    lines = [f"HEAD {path} HTTP/1.1\r\nHost: localhost\r\n\r\n" for path in paths]
    with connect(server) as connection:
        connection.sendall(
            "".join([*lines, "HEAD /x HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"]).encode()
        )
        said = read_all(connection)
    assert [answer[9:12] for answer in said.split(b"\r\n\r\n")] == [b"200", b"200", b"200", b"404", b""]


def test_events_of_a_request_that_waits(server: Server) -> None:
    """The answer does not last until the request is over."""
    request_id = server.submit(example(prompt="WORKS_SLOWLY"))
    server.until_running(request_id)
    started = time.monotonic()
    answer = server.http.head(f"{QUEUE}/{request_id}/status/stream")
    assert (answer.status_code, answer.headers["content-type"]) == (200, "text/event-stream; charset=utf-8")
    assert server.status(request_id)["status"] == "IN_PROGRESS"
    assert time.monotonic() - started < 20
    server.cancel(request_id)
    server.finish(request_id)


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("POST", "/health/live", "GET, HEAD"),
        ("PUT", f"{QUEUE}/x/status", "GET, HEAD"),
        ("DELETE", f"{QUEUE}/x", "GET, HEAD"),
        ("POST", f"/files/aa/{'a' * 32}/x.mp4", "GET, HEAD"),
        ("HEAD", f"/run/{APP}", "POST"),
        ("GET", f"/queue/{APP}", "POST"),
        ("HEAD", f"{QUEUE}/x/cancel", "PUT"),
    ],
)
def test_another_method_is_told_which_there_are(server: Server, method: str, path: str, allowed: str) -> None:
    answer = server.http.request(method, path)
    assert (answer.status_code, answer.headers["allow"]) == (405, allowed)


def test_wget_as_a_health_check(server: Server) -> None:
    wget = shutil.which("wget")
    if wget is None:
        missing("wget is not installed")
    done = subprocess.run([wget, "-q", "--spider", f"{server.url}/health/ready"], timeout=60, check=False)
    assert done.returncode == 0
