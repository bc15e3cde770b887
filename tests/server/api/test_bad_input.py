"""Bad input: fal's bodies, at once for the sync run, as the result for the queue."""

import base64
import json
from collections.abc import Iterator
from typing import Any

import pytest

from server.fal.example import PHOTO
from tests.harness.harmless import harmless
from tests.harness.live_server import APP, Server, example, photo_uri
from tests.harness.pictures import bomb

FIELDS = [
    ({"prompt": None}, "prompt", "string_type", None),
    ({"prompt": ""}, "prompt", "string_too_short", {"min_length": 1}),
    ({"prompt": "x" * 501}, "prompt", "string_too_long", {"max_length": 500}),
    ({"prompt": "   "}, "prompt", "value_error", None),
    ({"prompt": "a\u0007b"}, "prompt", "value_error", None),
    ({"prompt": "\0"}, "prompt", "value_error", None),
    ({"prompt": "\x7f"}, "prompt", "value_error", None),
    ({"negative_prompt": "a\x1bb"}, "negative_prompt", "value_error", None),
    ({"negative_prompt": "x" * 10_001}, "negative_prompt", "string_too_long", {"max_length": 10_000}),
    ({"image_url": 5}, "image_url", "string_type", None),
    ({"image_url": ""}, "image_url", "string_too_short", {"min_length": 1}),
    ({"image_url": "http://127.0.0.1/" + "x" * 2032}, "image_url", "string_too_long", {"max_length": 2048}),
    ({"num_inference_steps": 9}, "num_inference_steps", "greater_than_equal", {"ge": 10}),
    ({"num_inference_steps": 31}, "num_inference_steps", "less_than_equal", {"le": 30}),
    ({"num_inference_steps": 10.5}, "num_inference_steps", "int_from_float", None),
    ({"fps": 15}, "fps", "greater_than_equal", {"ge": 16}),
    ({"fps": 31}, "fps", "less_than_equal", {"le": 30}),
    ({"num_frames": 80}, "num_frames", "greater_than_equal", {"ge": 81}),
    ({"num_frames": 130}, "num_frames", "less_than_equal", {"le": 129}),
    ({"cfg_scale": 1.4}, "cfg_scale", "greater_than_equal", {"ge": 1.5}),
    ({"cfg_scale": 13.1}, "cfg_scale", "less_than_equal", {"le": 13.0}),
    ({"seed": 2**64}, "seed", "less_than", {"lt": 2**64}),
    ({"seed": -(2**63) - 1}, "seed", "greater_than_equal", {"ge": -(2**63)}),
    ({"seed": 1.5}, "seed", "int_from_float", None),
    ({"cfg_scale": "NaN"}, "cfg_scale", "finite_number", None),
    ({"cfg_scale": "inf"}, "cfg_scale", "finite_number", None),
    ({"cfg_scale": "-Infinity"}, "cfg_scale", "finite_number", None),
    ({"aspect_ratio": "1:1"}, "aspect_ratio", "literal_error", {"expected": "'16:9' or '9:16'"}),
    ({"resolution": "480p"}, "resolution", "literal_error", {"expected": "'512p' or '720p'"}),
    ({"enable_safety_checker": "maybe"}, "enable_safety_checker", "bool_parsing", None),
]


@pytest.fixture(autouse=True)
def nothing_is_lost(server: Server) -> Iterator[None]:
    with harmless(server):
        yield


@pytest.mark.parametrize(("change", "field", "kind", "ctx"), FIELDS)
def test_a_bad_field_is_422_for_run_and_queue(
    server: Server, change: dict[str, Any], field: str, kind: str, ctx: dict[str, Any] | None
) -> None:
    body = example(**change)
    at_once = server.http.post(f"/run/{APP}", json=body)
    request_id = server.submit(body)
    assert server.status(request_id)["status"] == "COMPLETED", "no worker is needed for that"
    later = server.result(request_id)
    for answer in (at_once, later):
        assert answer.status_code == 422
        assert answer.headers["x-fal-billable-units"] == "0"
        (item,) = answer.json()["detail"]
        assert (item["loc"], item["type"]) == (["body", field], kind)
        assert item["msg"]
        assert "input" in item
        if ctx is not None:
            assert item["ctx"] == ctx


def test_missing_fields_are_all_named(server: Server) -> None:
    detail = server.http.post(f"/run/{APP}", json={}).json()["detail"]
    assert [(item["loc"][-1], item["type"], item["msg"]) for item in detail] == [
        ("prompt", "missing", "Field required"),
        ("image_url", "missing", "Field required"),
    ]


def test_an_error_does_not_send_the_image_back(server: Server) -> None:
    answer = server.http.post(f"/run/{APP}", json={"image_url": photo_uri()})
    assert answer.status_code == 422
    assert len(answer.content) < 2000


HUGE = {
    "a string": "x" * 10**6,
    "strings": ["ü" * 150] * 50,
    "empty lists": [[]] * 10**4,
    "a tree": {f"k{n}": [["x" * 199] * 50] * 50 for n in range(10)},
    "a number": 10**4000,
}


@pytest.mark.parametrize("kind", HUGE)
def test_an_error_shows_only_the_beginning_of_what_was_wrong(server: Server, kind: str) -> None:
    body = {"prompt": HUGE[kind], "fps": HUGE[kind], "more": HUGE[kind]}
    answer = server.http.post(f"/run/{APP}", json=body)
    detail = answer.json()["detail"]
    assert {tuple(item["loc"]) for item in detail} == {("body", "prompt"), ("body", "fps"), ("body", "image_url")}
    assert all(len(json.dumps(item["input"])) < 4096 for item in detail)
    listed = server.http.post(f"/run/{APP}", json=[HUGE[kind]])
    assert len(listed.content) < 5000


def test_the_echo_of_a_query_is_short_too(server: Server) -> None:
    answer = server.http.post(f"/queue/{APP}", params={"fal_max_queue_length": "x" * 10_000}, json=example())
    assert answer.status_code == 422
    assert len(answer.content) < 2000


def test_unknown_fields_are_ignored(server: Server) -> None:
    assert server.finish(server.submit(example(no_such_field=1))).status_code == 200


@pytest.mark.parametrize("api", ["run", "queue"])
@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (b"", "json_invalid"),
        (b"{", "json_invalid"),
        (b'{"cfg_scale": NaN}', "json_invalid"),
        (b"\xff\xfe", "json_invalid"),
        (b"[1]", "model_attributes_type"),
        (b"null", "model_attributes_type"),
        (b"\xef\xbb\xbf[1]", "model_attributes_type"),
        ('{"cfg_scale": NaN}'.encode("utf-16"), "json_invalid"),
        ('{"cfg_scale": -Infinity}'.encode("utf-32"), "json_invalid"),
        (('{"x":' + "[" * 5000 + "]" * 5000 + "}").encode("utf-16"), "json_invalid"),
        (rb'{"prompt": "\ud83d", "x": Infinity}', "json_invalid"),
        (rb'{"prompt": "\ud83"}', "json_invalid"),
    ],
)
def test_a_body_that_is_no_json_object_is_refused_at_once(server: Server, api: str, body: bytes, kind: str) -> None:
    answer = server.http.post(f"/{api}/{APP}", content=body)
    assert (answer.status_code, answer.json()["detail"][0]["type"]) == (422, kind)


def test_infinity_by_overflow_is_422(server: Server) -> None:
    body = json.dumps(example(cfg_scale=5)).replace('"cfg_scale": 5', '"cfg_scale": 1e999')
    answer = server.http.post(f"/run/{APP}", content=body)
    (item,) = answer.json()["detail"]
    assert (answer.status_code, item["loc"], item["type"]) == (422, ["body", "cfg_scale"], "finite_number")


def _uri(content: bytes, media_type: str = "image/png") -> str:
    return f"data:{media_type};base64,{base64.b64encode(content).decode()}"


@pytest.mark.parametrize(
    ("image_url", "kind"),
    [
        (_uri(b"no image"), "image_load_error"),
        (_uri(PHOTO.read_bytes()[:2000], "image/jpeg"), "image_load_error"),
        (_uri(b"<svg xmlns='http://www.w3.org/2000/svg'/>"), "unsupported_image_format"),
        (_uri(b"GIF89a", "image/gif"), "image_load_error"),
        (_uri(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 100 100\n"), "image_load_error"),
        (_uri(b"%PDF-1.7\n"), "image_load_error"),
        (_uri(b"<!doctype html><script>alert(1)</script>"), "image_load_error"),
        ("data:image/png;base64,@@@@", "image_load_error"),
        ("data:image/png;base64,\u00e9", "image_load_error"),
        ("data:image/png;base64,\uff21\uff21\uff21\uff21", "image_load_error"),
        ("data:image/png;base64,", "image_load_error"),
        ("data:image/png,plain", "image_load_error"),
        ("data:", "image_load_error"),
        ("ftp://127.0.0.1/x.png", "file_download_error"),
        ("file:///etc/passwd", "file_download_error"),
        ("/etc/passwd", "file_download_error"),
        ("http://127.0.0.1:1/x.png", "file_download_error"),
        ("http://[::1", "file_download_error"),
    ],
)
def test_an_unusable_image_is_the_result(server: Server, image_url: str, kind: str) -> None:
    answer = server.finish(server.submit(example(image_url=image_url)))
    assert answer.status_code == 422
    (item,) = answer.json()["detail"]
    assert (item["loc"], item["type"]) == (["body", "image_url"], kind)
    assert answer.headers["x-fal-retryable"] == "false"


def test_a_tiny_image_says_how_large_it_must_be(server: Server) -> None:
    one_pixel = base64.b64decode(
        "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
    )
    answer = server.finish(server.submit(example(image_url=_uri(one_pixel))))
    (item,) = answer.json()["detail"]
    assert (item["type"], item["ctx"]) == ("image_too_small", {"min_height": 64, "min_width": 64})


def test_a_bomb_is_refused_by_its_header(server: Server) -> None:
    answer = server.finish(server.submit(example(image_url=_uri(bomb()))))
    (item,) = answer.json()["detail"]
    assert (answer.status_code, item["type"]) == (422, "image_too_large")
    assert item["ctx"] == {"max_height": 8192, "max_width": 8192}


def test_a_body_over_the_limit_is_413(server: Server) -> None:
    answer = server.http.post(f"/queue/{APP}", content=b"x" * (30 * 2**20 + 1))
    assert (answer.status_code, answer.json()["error_type"]) == (413, "bad_request")
    assert answer.headers["x-fal-error-type"] == "bad_request"


@pytest.mark.parametrize("priority", ["urgent", "low low", "é"])
def test_an_unknown_priority_is_the_normal_one(server: Server, priority: str) -> None:
    blocker = server.submit(example(prompt="WORKS_SLOWLY"))
    server.until_running(blocker)
    low = server.submit(**{"x-fal-queue-priority": "low"})
    answer = server.http.post(
        f"/queue/{APP}", json=example(), headers={"x-fal-queue-priority": priority.encode("latin-1")}
    )
    assert answer.status_code == 200
    unknown = answer.json()["request_id"]
    assert [server.status(waiting)["queue_position"] for waiting in (unknown, low)] == [0, 1]
    for request_id in (unknown, low, blocker):
        server.cancel(request_id)
    server.finish(blocker)


@pytest.mark.parametrize(
    ("path", "detail"),
    [
        ("/queue/fal-ai/flux", 'Application "flux" not found'),
        ("/run/fal-ai/flux", 'Application "flux" not found'),
        (f"/run/{APP}/stream", "Path /stream not found"),
        ("/nothing", "Path /nothing not found"),
    ],
)
def test_unknown_places_are_404_in_fals_words(server: Server, path: str, detail: str) -> None:
    answer = server.http.post(path, json=example())
    assert (answer.status_code, answer.json()) == (404, {"detail": detail})
    assert answer.headers["x-fal-request-id"]


def test_a_wrong_method_is_405(server: Server) -> None:
    for method, path in (("GET", f"/queue/{APP}"), ("DELETE", f"/run/{APP}"), ("PATCH", "/health/live")):
        answer = server.http.request(method, path)
        assert (answer.status_code, answer.json()) == (405, {"detail": "Method Not Allowed"})
