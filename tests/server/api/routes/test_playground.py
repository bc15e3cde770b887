"""What the playground asks beside fal's routes, over HTTP."""

import io
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from PIL import Image
from starlette.testclient import TestClient

from server.api.access.key_table import KeyTable
from server.db.connection import create_engine
from server.db.tables import request_table
from server.fal.schemas import HunyuanCustomInput
from tests.harness.in_process import open_api
from tests.harness.live_server import APP, Server, example, photo_uri, until

REQUESTS = "/playground/requests"
NOT_FOUND = {"detail": "Request not found", "status": "NOT_FOUND"}


@pytest.fixture
def api(tmp_path: Path) -> Iterator[TestClient]:
    with open_api(tmp_path) as client:
        yield client


def submit(api: TestClient, body: dict[str, Any] | None = None, **headers: str) -> str:
    answer = api.post(f"/queue/{APP}", json=body or example(), headers={"X-Fal-Queue-Priority": "low"} | headers)
    assert answer.status_code == 200, answer.text
    return str(answer.json()["request_id"])


def entry(api: TestClient, request_id: str) -> dict[str, Any]:
    answer = api.get(f"{REQUESTS}/{request_id}")
    assert (answer.status_code, answer.headers["x-fal-request-id"]) == (200, request_id)
    return dict(answer.json())


def change(folder: Path, request_id: str, **values: object) -> None:
    database = create_engine(f"sqlite:///{folder / 'hunyuan-custom.sqlite'}")
    with database.begin() as transaction:
        transaction.execute(sa.update(request_table).where(request_table.c.id == request_id).values(**values))
    database.dispose()


def test_a_video_is_found_again_with_its_thumbnail_and_deleted(server: Server) -> None:
    request_id = server.submit(example(seed=2**64 - 1))
    output = server.finish(request_id).json()
    newest = server.http.get(REQUESTS, params={"limit": 1}).json()["requests"]
    (found,) = newest
    assert found == server.http.get(f"{REQUESTS}/{request_id}").json()
    assert (found["request_id"], found["status"], found["seed"]) == (request_id, "COMPLETED", str(2**64 - 1))
    assert found["video"] == output["video"]
    assert found["created_at"] <= found["started_at"] <= found["finished_at"] <= time.time()
    assert found["inference_time"] > 0
    assert (found["expired"], found["cancelled"], found["error"]) == (False, False, None)

    thumbnail = server.http.get(found["thumbnail_url"])
    assert (thumbnail.headers["content-type"], thumbnail.headers["x-content-type-options"]) == ("image/webp", "nosniff")
    assert Image.open(io.BytesIO(thumbnail.content)).format == "WEBP"
    assert server.http.head(found["thumbnail_url"]).headers["content-type"] == "image/webp"
    image = server.http.get(f"{REQUESTS}/{request_id}/image")
    assert (image.headers["content-type"], image.headers["cache-control"]) == ("image/png", "no-store")
    assert Image.open(io.BytesIO(image.content)).format == "PNG"
    done = {"queue_position": None, "stage": None, "done": 0, "total": 0, "seconds_left": None, "preview": None}
    assert server.http.get(f"{REQUESTS}/{request_id}/progress").json() == {"status": "COMPLETED"} | done

    deleted = server.http.delete(f"{REQUESTS}/{request_id}")
    assert (deleted.status_code, deleted.content, deleted.headers["x-fal-request-id"]) == (204, b"", request_id)
    assert [server.http.get(found[url]["url"] if url == "video" else found[url]).status_code for url in
            ("video", "thumbnail_url")] == [404, 404]  # fmt: skip
    for path in ("", "/progress", "/preview", "/image"):
        answer = server.http.get(f"{REQUESTS}/{request_id}{path}")
        assert (answer.status_code, answer.json()) == (404, NOT_FOUND)
    assert server.http.delete(f"{REQUESTS}/{request_id}").json() == NOT_FOUND
    assert server.result(request_id).json() == NOT_FOUND


def test_a_running_request_shows_what_it_sees_until_its_end(server: Server) -> None:
    running = server.submit(example(prompt="WORKS_SLOWLY"))
    server.until_running(running)
    waiting = server.submit()

    def progress(request_id: str) -> dict[str, Any]:
        answer = server.http.get(f"{REQUESTS}/{request_id}/progress")
        assert (answer.status_code, answer.headers["x-fal-request-id"]) == (200, request_id)
        return dict(answer.json())

    until(lambda: progress(running)["preview"] is not None)
    first = progress(running)
    assert (first["status"], first["queue_position"], first["stage"]) == ("IN_PROGRESS", None, "denoise")
    assert 0 < first["done"] < first["total"]
    assert first["seconds_left"] == 1e5
    until(lambda: progress(running)["preview"] > first["preview"])
    picture = server.http.get(f"{REQUESTS}/{running}/preview")
    assert (picture.headers["content-type"], picture.headers["cache-control"]) == ("image/webp", "no-store")
    assert Image.open(io.BytesIO(picture.content)).size == (16, 9)
    until(lambda: progress(waiting) | {"stage": None} == progress(waiting))  # its image is prepared
    assert (progress(waiting)["status"], progress(waiting)["queue_position"]) == ("IN_QUEUE", 0)
    for request_id in (waiting, running):  # else the one that waits would begin
        refused = server.http.delete(f"{REQUESTS}/{request_id}")
        assert (refused.status_code, refused.json()["detail"]) == (400, "Request is still in progress")
        server.cancel(request_id)
    server.finish(running)
    assert server.http.get(f"{REQUESTS}/{running}/preview").json() == NOT_FOUND
    ended = server.http.get(f"{REQUESTS}/{running}").json()
    assert (ended["cancelled"], ended["error"]["status"], ended["video"]) == (True, 499, None)
    assert server.http.delete(f"{REQUESTS}/{running}").status_code == 204


def test_pages_go_from_the_newest_to_the_oldest(api: TestClient) -> None:
    made = [submit(api, {"prompt": "p", "image_url": "x", "num_frames": number}) for number in range(5)]
    seen: list[str] = []
    before: int | None = None
    for expected in (2, 2, 1):
        page = api.get(REQUESTS, params={"limit": 2} | ({} if before is None else {"before": before})).json()
        assert len(page["requests"]) == expected
        seen += [one["request_id"] for one in page["requests"]]
        before = page["next"]
        if len(seen) == 2:
            made.append(submit(api))  # one more meanwhile moves none of those that follow
    assert before is None
    assert seen == made[4::-1]
    assert [one["request_id"] for one in api.get(REQUESTS).json()["requests"]] == made[::-1]
    assert api.get(REQUESTS, params={"before": 0}).json() == {"requests": [], "next": None}
    for wrong in ({"limit": 0}, {"limit": 101}, {"before": -1}, {"before": 2**31}, {"limit": "x"}):
        assert api.get(REQUESTS, params=wrong).status_code == 422


def test_inputs_come_back_as_they_were_asked_for(api: TestClient) -> None:
    asked = {"prompt": "a woman " + "é" * 400, "seed": 5, "fps": 20, "resolution": "720p"}
    sent_along, by_url = (submit(api, asked | {"image_url": url}) for url in (photo_uri(), "http://127.0.0.1/w.png"))
    defaults = HunyuanCustomInput(prompt="p", image_url="x").model_dump()
    assert entry(api, by_url)["input"] == defaults | asked | {"image_url": "http://127.0.0.1/w.png"}
    assert entry(api, sent_along)["input"] == defaults | asked | {"image_url": None}, "not megabytes of base64"
    assert api.get(f"{REQUESTS}/{sent_along}/image").headers["content-type"] == "image/jpeg", "not checked yet"
    assert api.get(f"{REQUESTS}/{by_url}/image").status_code == 404, "not fetched yet"

    invalid = entry(api, submit(api, {"prompt": "p"}))
    assert (invalid["input"], invalid["status"], invalid["cancelled"]) == (None, "COMPLETED", False)
    assert invalid["error"]["status"] == 422
    assert invalid["error"]["body"]["detail"][0]["loc"] == ["body", "image_url"]
    forgotten = submit(api, **{"X-Fal-Store-IO": "0"})
    assert entry(api, forgotten)["input"] is not None
    api.put(f"/queue/{APP}/requests/{forgotten}/cancel")
    assert (entry(api, forgotten)["input"], entry(api, forgotten)["cancelled"]) == (None, True)


def test_media_whose_time_is_over_are_said_to_be(api: TestClient, tmp_path: Path) -> None:
    request_id = submit(api)
    key = f"files/aa/{'a' * 32}/{request_id}"
    ended = {"status": "COMPLETED", "response_status": 200, "video_bytes": 1, "finished_at": 2.0}
    change(tmp_path, request_id, **ended, video_key=f"{key}.mp4", thumbnail_key=f"{key}.webp")
    assert entry(api, request_id)["video"]["url"].endswith(f"{key}.mp4")
    assert entry(api, request_id)["thumbnail_url"].endswith(f"{key}.webp")
    change(tmp_path, request_id, media_deleted=True, source_key=None, thumbnail_key=None)
    shown = entry(api, request_id)
    assert (shown["expired"], shown["video"], shown["thumbnail_url"]) == (True, None, None)
    assert [api.get(f"/{key}{suffix}").status_code for suffix in (".mp4", ".webp")] == [410, 410]
    assert api.get(f"{REQUESTS}/{request_id}/image").status_code == 410


def test_what_an_earlier_version_took_is_shown_and_deleted(api: TestClient, tmp_path: Path) -> None:
    request_id = submit(api)
    api.put(f"/queue/{APP}/requests/{request_id}/cancel")
    change(tmp_path, request_id, input_json='{"prompt": "", "image_url": "https://x.example/y.png"}')
    assert entry(api, request_id)["input"]["prompt"] == ""
    assert api.delete(f"{REQUESTS}/{request_id}").status_code == 204
    assert api.get(f"{REQUESTS}/{request_id}").status_code == 404


def test_requests_are_their_owners_alone(tmp_path: Path) -> None:
    with open_api(tmp_path, api={"keys_reload_s": 0.001}) as api:
        keys = KeyTable(create_engine(f"sqlite:///{tmp_path / 'hunyuan-custom.sqlite'}"))
        mine, other = ({"Authorization": f"Key {keys.create(owner)}"} for owner in ("mine", "other"))
        request_id = submit(api, **mine)
        api.put(f"/queue/{APP}/requests/{request_id}/cancel", headers=mine)
        one = f"{REQUESTS}/{request_id}"
        calls = [("GET", one), ("GET", f"{one}/progress"), ("GET", f"{one}/preview"), ("GET", f"{one}/image")]
        for method, path in [*calls, ("DELETE", one)]:
            foreign = api.request(method, path, headers=other)
            unknown = api.request(method, path.replace(request_id, "0" * 36), headers=other)
            malformed = api.request(method, path.replace(request_id, "%00"), headers=other)
            assert (foreign.status_code, foreign.json()) == (404, NOT_FOUND)
            assert [answer.json() for answer in (unknown, malformed)] == [NOT_FOUND] * 2
            assert api.request(method, path).status_code == 401
        assert api.get(REQUESTS).status_code == 401
        assert api.get(REQUESTS, headers=other).json() == {"requests": [], "next": None}
        assert len(api.get(REQUESTS, headers=mine).json()["requests"]) == 1
        assert api.delete(one, headers=mine).status_code == 204


def test_a_session_says_what_its_caller_may_know(tmp_path: Path, server: Server) -> None:
    here = server.http.get("/playground/session").json()
    assert (here["keys_required"], here["owner"], here["ready"], here["reason"]) == (False, "local", True, None)
    assert here["model"] == server.worker()["detail"]
    assert here["base_url"] == server.url
    assert list(here["input_schema"]["properties"]) == list(HunyuanCustomInput.model_fields)
    with open_api(tmp_path, keyed=True, image={"max_bytes": 1000, "background": "white"}) as api:
        known = api.get("/playground/session").json()
        assert (known["owner"], known["ready"], known["reason"]) == ("local", False, "no worker is running")
        assert (known["limits"]["max_image_bytes"], known["crop"]["background"]) == (1000, "white")
        for header in ("", "Key wrong:wrong"):
            stranger = api.get("/playground/session", headers={"Authorization": header}).json()
            assert stranger == known | {"owner": None, "reason": None}


def test_other_web_pages_neither_read_nor_delete(api: TestClient) -> None:
    request_id = submit(api)
    api.put(f"/queue/{APP}/requests/{request_id}/cancel")
    elsewhere = {"Origin": "https://evil.example"}
    for path in ("", f"/{request_id}", f"/{request_id}/image"):
        answer = api.get(f"{REQUESTS}{path}", headers=elsewhere)
        assert answer.status_code == 200
        assert "access-control-allow-origin" not in answer.headers
    assert api.delete(f"{REQUESTS}/{request_id}", headers=elsewhere).status_code == 403
    assert api.delete(f"{REQUESTS}/{request_id}", headers={"Origin": "http://127.0.0.1:8000"}).status_code == 204
