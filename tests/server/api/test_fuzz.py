"""Nonsense from everywhere: the server stays well and blames the sender.

A few hundred cases by default; 20,000 with `pytest tests/server/api/test_fuzz.py --hypothesis-profile=benchmark`.
"""

import base64
import io
import json
import socket
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import psutil
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from server.errors import ModelError
from server.untrusted.image_sanitise import PixelLimits, sanitise
from server.untrusted.media_types import media_type
from server.webhooks.target import check_webhook_url
from tests.harness.in_process import open_api
from tests.harness.live_server import APP, Server, example

# Shares of the cases of a profile: what costs a round trip through the server, and what does not.
_CASES = settings.default.max_examples if settings.default is not None else 100


def cases(share: float) -> Callable[[Any], Any]:
    """So many of the profile's cases, without a limit on the time of one (the machine may be busy)."""
    checks = [HealthCheck.too_slow, HealthCheck.function_scoped_fixture, HealthCheck.data_too_large]
    return settings(max_examples=max(10, int(_CASES * share)), deadline=None, suppress_health_check=checks)


@pytest.fixture(scope="module", autouse=True)
def the_server_stays_well(server: Server) -> Iterator[None]:
    """Around all cases: the same process, no larger than before, and it still makes videos."""
    api = psutil.Process(server.pid_of("api"))
    yield
    assert server.finish(server.submit(example(seed=1))).status_code == 200
    assert api.is_running()
    assert api.memory_info().rss < 250 * 2**20


def blames_the_sender(answer: httpx.Response) -> None:
    assert answer.status_code < 500, answer.text
    assert "Traceback" not in answer.text
    assert answer.headers["x-fal-request-id"]
    if answer.status_code >= 400 and answer.content:
        assert answer.headers["content-type"].startswith("application/json")
        assert isinstance(answer.json(), dict)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
FIELDS = ["prompt", "negative_prompt", "image_url", "num_inference_steps", "seed", "aspect_ratio", "resolution", "fps",
          "cfg_scale", "num_frames", "enable_prompt_expansion", "enable_safety_checker"]  # fmt: skip
# Invalid for sure, so that no case renders a video: the rest of the body is arbitrary.
BODIES = st.dictionaries(st.sampled_from(FIELDS) | st.text(max_size=6), JSON, max_size=6).map(
    lambda changes: {"prompt": "x", "image_url": "data:,"} | changes | {"num_frames": 0}
)


@cases(1.0)
@given(body=JSON | BODIES, api=st.sampled_from(["run", "queue"]))
def test_json_bodies(server: Server, body: Any, api: str) -> None:
    answer = server.http.post(f"/{api}/{APP}", content=json.dumps(body, ensure_ascii=True))
    blames_the_sender(answer)
    assert answer.status_code in ({200, 422} if api == "queue" else {422})


IN_RANGE = {
    "negative_prompt": st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=50),
    "num_inference_steps": st.integers(10, 30),
    "seed": st.none() | st.integers(-(2**63), 2**64 - 1),
    "aspect_ratio": st.sampled_from(["16:9", "9:16"]),
    "resolution": st.sampled_from(["512p", "720p"]),
    "fps": st.integers(16, 30) | st.integers(16, 30).map(str),
    "cfg_scale": st.floats(1.5, 13),
    "num_frames": st.integers(81, 129),
    "enable_prompt_expansion": st.booleans() | st.sampled_from(["yes", "off", 1]),
    "enable_safety_checker": st.booleans(),
}
MEDIA_TYPES = st.sampled_from(["image/png", "IMAGE/JPEG", "image/webp ", "image/gif", "text/html", ""])
# Right but for the image, which the worker looks at: a case costs no video.
IMAGE_URLS = (
    st.tuples(
        MEDIA_TYPES, st.sampled_from([";base64", " ;BASE64", "", ";charset=x;base64"]), st.binary(max_size=60)
    ).map(lambda parts: f"data:{parts[0]}{parts[1]},{base64.b64encode(parts[2]).decode()}")
    | st.text(max_size=40).map(lambda text: f"data:image/png;base64,{text}")
    | st.text(st.sampled_from("htp:/@[].0123456789abcdefx%#?\\\t é"), max_size=40).map(lambda rest: f"http://{rest}")
    | st.text(min_size=1, max_size=40)
)
VALID = st.fixed_dictionaries(
    {"prompt": st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=80).map(lambda t: f"x{t}")},
    optional=IN_RANGE,
)


@cases(0.3)
@given(body=VALID, image_url=IMAGE_URLS)
def test_valid_bodies_with_strange_images(still: httpx.Client, body: dict[str, Any], image_url: str) -> None:
    """Through the whole intake: the image is detached, the row written, the job enqueued, and cancelled again."""
    answer = still.post(f"/queue/{APP}", content=json.dumps({**body, "image_url": image_url}))
    blames_the_sender(answer)
    assert answer.status_code == 200, answer.text
    place = f"/queue/{APP}/requests/{answer.json()['request_id']}"
    cancelled = still.put(f"{place}/cancel")
    assert cancelled.status_code in {202, 400}, cancelled.text
    result = still.get(place)
    blames_the_sender(result)
    assert result.status_code in {499, 422}


@pytest.fixture(scope="module")
def still(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """An API without a worker: nothing that it accepts is ever made."""
    no_limit = {"posts_per_s": 1e6, "posts_burst": 10**6}  # on a fast machine the cases come faster than a user may
    with open_api(tmp_path_factory.mktemp("still"), limits=no_limit) as client:
        yield client


@cases(0.05)
@given(image_url=IMAGE_URLS)
def test_strange_images_reach_the_worker(server: Server, image_url: str) -> None:
    """`prepare` refuses them one and all, each with a typed error."""
    answer = server.http.post(f"/queue/{APP}", content=json.dumps(example(image_url=image_url)))
    blames_the_sender(answer)
    if answer.status_code == 200:
        result = server.finish(answer.json()["request_id"])
        blames_the_sender(result)
        assert result.status_code == 422, result.text


@cases(0.5)
@given(
    body=st.binary(max_size=200) | BODIES.map(lambda body: json.dumps(body).encode()[:-3]),
    path=st.sampled_from(
        [f"/queue/{APP}", f"/run/{APP}", "/rest/storage/upload/initiate", "/rest/storage/auth/token",
         "/cdn/files/upload", "/api/fal/proxy", "/rest/storage/upload/initiate-multipart"]
    ),
)  # fmt: skip
def test_bytes_as_bodies(server: Server, body: bytes, path: str) -> None:
    blames_the_sender(server.http.post(path, content=body))


LIFECYCLES = JSON.map(json.dumps) | st.fixed_dictionaries(
    {}, optional={"expiration_duration_seconds": JSON | st.integers(), "initial_acl": JSON}
).map(json.dumps)


@cases(0.5)
@given(value=LIFECYCLES, name=st.sampled_from(["X-Fal-Object-Lifecycle", "X-Fal-Object-Lifecycle-Preference"]))
def test_lifecycles(server: Server, value: str, name: str) -> None:
    """JSON in a header: what it says is honoured or ignored, never refused."""
    headers = {name: value.encode()}
    submitted = server.http.post(f"/queue/{APP}", content=b'{"num_frames": 0}', headers=headers)
    blames_the_sender(submitted)
    initiated = server.http.post("/rest/storage/upload/initiate", json={}, headers=headers)
    blames_the_sender(initiated)
    assert {submitted.status_code, initiated.status_code} <= {200, 431}


NAMES = st.sampled_from(
    ["x-fal-queue-priority", "x-fal-request-timeout", "x-fal-no-retry", "x-fal-store-io", "idempotency-key",
     "x-fal-object-lifecycle-preference", "x-fal-object-lifecycle", "x-fal-runner-hint", "x-fal-target-url",
     "x-fal-file-name", "authorization", "content-type", "accept", "origin", "range", "if-range", "last-event-id",
     "x-forwarded-host", "x-forwarded-proto", "x-forwarded-prefix", "cookie", "expect", "accept-encoding"]
)  # fmt: skip
VALUES = st.text(st.characters(min_codepoint=32, max_codepoint=255, exclude_characters="\x7f"), max_size=60).map(
    lambda text: text.strip().encode("latin-1")
)


@cases(1.0)
@given(
    headers=st.dictionaries(NAMES, VALUES, max_size=5),
    call=st.sampled_from(
        [("POST", f"/queue/{APP}"), ("GET", f"/queue/{APP}/requests/x/status"), ("POST", "/api/fal/proxy"),
         ("PUT", f"/queue/{APP}/requests/x/cancel"), ("POST", "/cdn/files/upload"), ("OPTIONS", f"/queue/{APP}"),
         ("GET", "/cdn/files/aa/" + "a" * 32 + "/x.png"), ("POST", "/rest/storage/upload/initiate")]
    ),
    webhook=st.none() | st.text(max_size=40),
)  # fmt: skip
def test_headers_and_queries(
    server: Server, headers: dict[str, bytes], call: tuple[str, str], webhook: str | None
) -> None:
    method, path = call
    query = {} if webhook is None else {"fal_webhook": webhook.encode("utf-8", "replace").decode()}
    content = b'{"num_frames": 0}' if method == "POST" else None
    blames_the_sender(server.http.request(method, path, headers=headers, params=query, content=content))


@cases(0.5)
@given(
    path=st.text(st.characters(min_codepoint=33, max_codepoint=126), max_size=80),
    method=st.sampled_from(["GET", "PUT"]),
)
def test_paths(server: Server, path: str, method: str) -> None:
    url = httpx.URL(server.url)
    with socket.create_connection((url.host, url.port or 80), timeout=60) as connection:
        request = f"{method} /{path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
        connection.sendall(request.encode())
        status = connection.makefile("rb").readline()
    assert status.startswith(b"HTTP/1.1 ")
    assert int(status.split()[1]) < 500


@cases(0.5)
@given(raw=st.binary(min_size=1, max_size=400), valid_start=st.booleans())
def test_raw_connections(server: Server, raw: bytes, valid_start: bool) -> None:
    url = httpx.URL(server.url)
    with socket.create_connection((url.host, url.port or 80), timeout=60) as connection:
        connection.sendall((b"GET /health/live HTTP/1.1\r\nHost: localhost\r\n" if valid_start else b"") + raw)
        connection.shutdown(socket.SHUT_WR)
        try:
            said = connection.recv(65536)
        except ConnectionResetError:
            said = b""
    assert not said or int(said.split()[1]) < 500


def _encoded() -> list[bytes]:
    found = []
    for form, mode in (("PNG", "RGB"), ("PNG", "RGBA"), ("PNG", "P"), ("JPEG", "RGB"), ("WEBP", "RGB"),
                       ("PNG", "I;16"), ("MPO", "RGB"), ("JPEG", "CMYK"), ("GIF", "P"), ("BMP", "RGB"), ("TIFF", "RGB"),
                       ("TIFF", "I;16"), ("AVIF", "RGB")):  # fmt: skip
        content = io.BytesIO()
        Image.effect_noise((80, 80), 60).convert(mode).save(content, form)
        found.append(content.getvalue())
    return found


IMAGES = _encoded()
MUTATIONS = st.lists(st.tuples(st.integers(0, 10_000), st.binary(max_size=6)), min_size=1, max_size=8)


def _broken(content: bytes, mutations: list[tuple[int, bytes]]) -> bytes:
    broken = bytearray(content)
    for place, new in mutations:
        at = place % len(broken)
        broken[at : at + len(new)] = new
    return bytes(broken)


@cases(1.0)
@given(content=st.sampled_from(IMAGES), mutations=MUTATIONS, cut=st.none() | st.integers(1, 5000))
def test_image_bytes(content: bytes, mutations: list[tuple[int, bytes]], cut: int | None) -> None:
    """The decoder as it runs in its process: a broken image is refused by a typed error, or becomes a PNG."""
    broken = _broken(content, mutations)[:cut]
    target = io.BytesIO()
    try:
        sanitise(io.BytesIO(broken), target, PixelLimits(64, 1000, 1_000_000))
    except ModelError:
        return
    assert media_type(target.getvalue()[:12]) == "image/png"


@cases(0.2)
@given(image=st.binary(max_size=300) | st.builds(_broken, st.sampled_from(IMAGES), MUTATIONS))
def test_image_bytes_through_the_upload(server: Server, image: bytes) -> None:
    urls = server.http.post("/rest/storage/upload/initiate", json={"content_type": "image/png"}).json()
    answer = server.http.put(urls["upload_url"], content=image)
    blames_the_sender(answer)
    assert answer.status_code in {200, 422}
    assert (answer.status_code == 200) is (media_type(image) is not None)
    if answer.status_code == 200:
        served = server.http.get(urls["file_url"])
        assert (served.content, served.headers["content-type"]) == (image, media_type(image))


@pytest.fixture(scope="module")
def image_url(server: Server) -> str:
    urls = server.http.post("/rest/storage/upload/initiate", json={"content_type": "image/png"}).json()
    assert server.http.put(urls["upload_url"], content=IMAGES[0]).status_code == 200
    return str(urls["file_url"])


NUMBERS = st.integers(0, 30_000).map(str) | st.sampled_from(["", "-1", "9" * 40, "0x1", " 1", "²", "1e3"])
RANGES = (
    st.lists(st.tuples(NUMBERS, NUMBERS).map("-".join), min_size=1, max_size=6).map(
        lambda parts: f"bytes={','.join(parts)}"
    )
    | st.text(st.sampled_from("bytes=-, 0123456789"), max_size=30)
    | st.tuples(st.sampled_from(["pages", "Bytes", "bytes "]), NUMBERS).map(lambda parts: f"{parts[0]}={parts[1]}-")
)


@cases(0.5)
@given(value=RANGES, if_range=st.none() | VALUES, method=st.sampled_from(["GET", "HEAD"]))
def test_ranges_of_a_real_file(server: Server, image_url: str, value: str, if_range: bytes | None, method: str) -> None:
    headers = {"Range": value.strip().encode("latin-1", "replace")} | (
        {} if if_range is None else {"If-Range": if_range}
    )
    answer = server.http.request(method, image_url, headers=headers)
    assert answer.status_code in {200, 206, 416}
    if answer.status_code == 416:
        assert answer.headers["content-range"] == f"bytes */{len(IMAGES[0])}"
        assert method == "HEAD" or answer.json()["error_type"] == "bad_request"
    elif method == "GET" and "multipart" not in answer.headers["content-type"]:
        assert answer.content in IMAGES[0]


@cases(1.0)
@given(url=st.text(max_size=80) | st.text(st.sampled_from("htp:/@[].0123456789abcdefx%#?\\\t "), max_size=40))
def test_webhook_urls(url: str) -> None:
    from server.untrusted.addresses import OutboundPolicy

    try:
        check_webhook_url(f"http://{url}", OutboundPolicy())
    except ModelError:
        return
