"""Images from elsewhere, over HTTP; "elsewhere" is a listener on loopback."""

import base64
import contextlib
import io
import json
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from PIL import Image

from server.fal.example import PHOTO
from tests.harness.harmless import harmless
from tests.harness.live_server import APP, FAST, SHORT_LIMITS, Server, example, launch

HEIC = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + b"\0" * 100
LARGEST = int(SHORT_LIMITS["image__max_bytes"])


@dataclass
class Origin:
    """Serves an image, or what its path is named after."""

    url: str = ""
    asked: list[str] = field(default_factory=list)

    def respond(self, handler: BaseHTTPRequestHandler) -> None:
        self.asked.append(handler.path)
        name = handler.path.strip("/").partition("?")[0]
        headers: dict[str, str] = {}
        status, body = 200, b"<!doctype html><title>not an image</title>"
        if name.isdigit():
            status = int(name)
        elif name.startswith("first-"):  # a status, or a reset, to the first two calls
            body = PHOTO.read_bytes()
            if self.asked.count(handler.path) <= 2:
                status = int(name[6:]) if name[6:].isdigit() else 0
        elif name == "hop" or name.startswith("hop-"):
            left = int(name[4:] or 0)
            status, headers["Location"] = 302, f"/hop-{left - 1}" if left > 1 else "/image"
        elif name == "from-a-proxy":
            status, body = 203, PHOTO.read_bytes()
        elif name.startswith("redirect"):
            target = {"redirect": "/image", "redirect-private": "http://10.0.0.1/x", "redirect-loop": "/redirect-loop",
                      "redirect-file": "file:///etc/passwd"}[name]  # fmt: skip
            status, headers["Location"] = 302, target
        elif name == "image":
            body = PHOTO.read_bytes()
        elif name == "heic":
            body = HEIC
        elif name == "large":
            body = b"\x89PNG\r\n\x1a\n" + b"\0" * LARGEST
        elif name == "slow":
            time.sleep(4)
        if not status:
            handler.close_connection = True
            return
        handler.send_response(status)
        for header, value in headers.items():
            handler.send_header(header, value)
        handler.send_header("Content-Length", str(len(body) if name != "cut" else len(body) + 10))
        handler.end_headers()
        handler.wfile.write(body)


@pytest.fixture(scope="module")
def origin() -> Iterator[Origin]:
    served = Origin()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                served.respond(self)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        served.url = f"http://127.0.0.1:{http.server_address[1]}"
        threading.Thread(target=http.serve_forever, daemon=True).start()
        yield served
        http.shutdown()


@pytest.fixture(scope="module")
def strict(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server as it is outside of a laboratory: no private network is listed."""
    running = launch(tmp_path_factory.mktemp("strict"), **FAST, allow_private_networks="[]")
    yield running
    running.stop()


def problem(server: Server, **changes: Any) -> dict[str, Any]:
    with harmless(server):
        answer = server.finish(server.submit(example(**changes)))
    assert answer.status_code == 422, answer.text
    (item,) = answer.json()["detail"]
    assert item["loc"] == ["body", "image_url"]
    return dict(item)


@pytest.mark.parametrize("path", ["/image", "/image?signature=x", "/redirect"])
def test_an_image_is_fetched(impatient: Server, origin: Origin, path: str) -> None:
    assert impatient.finish(impatient.submit(example(image_url=f"{origin.url}{path}"))).status_code == 200


@pytest.mark.parametrize("path", ["/hop-5", "/from-a-proxy"])
def test_an_image_is_fetched_by_a_detour(server: Server, origin: Origin, path: str) -> None:
    assert server.finish(server.submit(example(image_url=f"{origin.url}{path}"))).status_code == 200


def test_six_redirects_are_too_many(server: Server, origin: Origin) -> None:
    assert problem(server, image_url=f"{origin.url}/hop-6")["type"] == "file_download_error"


@pytest.mark.parametrize("first", ["429", "502", "503", "504", "reset"])
def test_an_origin_that_is_busy_is_asked_three_times(server: Server, origin: Origin, first: str) -> None:
    path = f"/first-{first}"
    assert server.finish(server.submit(example(image_url=f"{origin.url}{path}"))).status_code == 200
    assert origin.asked.count(path) == 3


@pytest.mark.parametrize(("before", "after"), [(" ", ""), ("", "\n"), ("\t", " \r\n")])
def test_whitespace_around_a_url_is_no_part_of_it(server: Server, origin: Origin, before: str, after: str) -> None:
    path = f"/image?{len(origin.asked)}"
    request_id = server.submit(example(image_url=f"{before}{origin.url}{path}{after}"))
    assert server.finish(request_id).status_code == 200
    assert origin.asked[-1] == path


@pytest.mark.parametrize("url", ["by URL", "by data URI"])
def test_a_format_that_is_not_accepted_has_one_code(server: Server, origin: Origin, url: str) -> None:
    heic = f"data:image/heic;base64,{base64.b64encode(HEIC).decode()}"
    item = problem(server, image_url=f"{origin.url}/heic" if url == "by URL" else heic)
    assert item["type"] == "unsupported_image_format"
    assert ".avif" in item["ctx"]["supported_formats"]


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/404", "file_download_error"),
        ("/500", "file_download_error"),
        ("/slow", "file_download_error"),
        ("/cut", "file_download_error"),
        ("/redirect-loop", "file_download_error"),
        ("/redirect-private", "file_download_error"),
        ("/redirect-file", "file_download_error"),
        ("/html", "image_load_error"),
    ],
)
def test_what_cannot_be_fetched_is_the_result(impatient: Server, origin: Origin, path: str, kind: str) -> None:
    item = problem(impatient, image_url=f"{origin.url}{path}")
    assert item["type"] == kind
    assert "127.0.0.1" not in item["msg"]
    assert "10.0.0.1" not in item["msg"]


def test_too_many_bytes_are_named(impatient: Server, origin: Origin) -> None:
    item = problem(impatient, image_url=f"{origin.url}/large")
    assert (item["type"], item["ctx"]) == ("file_too_large", {"max_size": LARGEST})


def test_a_data_uri_has_the_same_limit(impatient: Server) -> None:
    uri = f"data:image/png;base64,{base64.b64encode(b'x' * (LARGEST + 3)).decode()}"
    item = problem(impatient, image_url=uri)
    assert (item["type"], item["ctx"]) == ("file_too_large", {"max_size": LARGEST})


def test_the_service_log_alone_knows_why(impatient: Server, origin: Origin) -> None:
    request_id = impatient.submit(example(image_url=f"{origin.url}/404"))
    impatient.finish(request_id)
    told = [*impatient.messages(request_id), impatient.status(request_id)["error"]]
    assert told[-1]
    assert not [line for line in told if "404" in line or "Traceback" in line]


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "127.1", "2130706433", "0x7f.1", "[::ffff:127.0.0.1]"])
def test_this_machine_is_not_asked_unless_it_is_listed(strict: Server, origin: Origin, host: str) -> None:
    asked = len(origin.asked)
    url = f"{origin.url.replace('127.0.0.1', host)}/image"
    assert problem(strict, image_url=url)["type"] == "file_download_error"
    answer = strict.http.post(f"/queue/{APP}", params={"fal_webhook": url}, json=example())
    assert answer.status_code == 422
    assert len(origin.asked) == asked


def test_a_strict_server_still_takes_its_own_files(strict: Server) -> None:
    urls = strict.http.post("/rest/storage/upload/initiate", json={}).json()
    strict.http.put(urls["upload_url"], content=PHOTO.read_bytes())
    assert strict.finish(strict.submit(example(image_url=urls["file_url"]))).status_code == 200


def test_a_video_of_this_server_is_no_image(server: Server) -> None:
    url = server.finish(server.submit()).json()["video"]["url"]
    assert problem(server, image_url=url)["type"] == "image_load_error"


def test_too_many_pixels_are_named(server: Server) -> None:
    content = io.BytesIO()
    Image.new("1", (8192, 6145)).save(content, "PNG")
    item = problem(server, image_url=f"data:image/png;base64,{base64.b64encode(content.getvalue()).decode()}")
    assert (item["type"], item["ctx"]) == ("image_too_large", {"max_height": 8192, "max_width": 8192})
    assert "50331648 pixels" in item["msg"], "not the sides, which are within their limit"


@pytest.mark.parametrize("content_type", ["text/plain", "application/x-www-form-urlencoded", "image/png", "x", ""])
def test_json_is_json_whatever_it_is_called(server: Server, content_type: str) -> None:
    body = json.dumps(example(prompt=""))
    answer = server.http.post(f"/run/{APP}", content=body, headers={"Content-Type": content_type})
    assert (answer.status_code, answer.json()["detail"][0]["type"]) == (422, "string_too_short")


def test_deep_and_wide_json_is_refused_or_ignored(server: Server) -> None:
    deep = b'{"x":' + b"[" * 90_000 + b"]" * 90_000 + b"}"
    assert server.http.post(f"/run/{APP}", content=deep).status_code == 422
    wide = json.dumps({f"k{n}": n for n in range(40_000)} | example(prompt="")).encode()
    answer = server.http.post(f"/run/{APP}", content=wide)
    assert answer.status_code == 422
    assert len(answer.content) < 5000


def test_of_two_equal_names_the_last_one_counts(server: Server) -> None:
    body = json.dumps(example(fps=16))[:-1] + ', "fps": 5}'
    (item,) = server.http.post(f"/run/{APP}", content=body).json()["detail"]
    assert item["loc"] == ["body", "fps"]
