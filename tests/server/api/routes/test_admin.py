"""The operator's routes: what they tell and do, for whom, and how they answer mistakes."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from starlette.testclient import TestClient

from server.api.access.key_table import KeyTable
from server.db.connection import create_engine
from server.db.tables import webhook_table
from server.version import VERSION
from tests.harness.in_process import open_api
from tests.harness.live_server import APP, Server, example

TOKEN = "of-the-operator-0123"
UNKNOWN = "00000000-0000-0000-0000-000000000000"
GETS = ("/admin/overview", "/admin/requests", f"/admin/requests/{UNKNOWN}")
POSTS = ("/admin/drain", f"/admin/webhooks/{UNKNOWN}/redeliver", f"/admin/requests/{UNKNOWN}/cancel")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("admin")


@pytest.fixture(scope="module")
def api(folder: Path) -> Iterator[TestClient]:
    with open_api(folder, jobs={"min_free_bytes": 0}) as client:
        yield client


@pytest.fixture(scope="module")
def database(folder: Path) -> Iterator[sa.Engine]:
    opened = create_engine(f"sqlite:///{folder / 'hunyuan-custom.sqlite'}")
    yield opened
    opened.dispose()


def overview(api: Any) -> dict[str, Any]:
    answer = api.get("/admin/overview")
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


def submit(api: TestClient, **params: str) -> str:
    answer = api.post(f"/queue/{APP}", json=example(), params=params)
    assert answer.status_code == 200, answer.text
    return str(answer.json()["request_id"])


def test_it_tells_of_the_deployment_and_of_this_process(api: TestClient, folder: Path) -> None:
    request_id = submit(api)
    found = overview(api)
    assert request_id in [job["request_id"] for job in found["queue"]["next"]]
    server = found["server"]
    assert (server["version"], server["data_dir"], found["database"]) == (VERSION, str(folder), "sqlite")
    assert 0 < server["disk_free_bytes"] <= server["disk_total_bytes"]
    assert found["keys"] == 0


def test_a_real_server_drains_and_another_owners_request_can_be_cancelled(server: Server) -> None:
    def drain(draining: bool) -> None:
        answer = server.http.post("/admin/drain", json={"draining": draining})
        assert (answer.status_code, answer.json()) == (200, {"draining": draining})

    running = server.submit(example(prompt="WORKS_SLOWLY"))
    waiting = None
    try:
        server.until_running(running)
        jobs = {job["request_id"]: job for job in overview(server.http)["running"]}  # one before may be published
        assert (jobs[running]["worker_id"], jobs[running]["attempt"]) == ("local", 1)
        drain(True)
        assert [worker["draining"] for worker in overview(server.http)["workers"]] == [True]
        waiting = server.submit()
        answer = server.http.post(f"/admin/requests/{running}/cancel")
        assert (answer.status_code, answer.json()) == (202, {"status": "CANCELLATION_REQUESTED"})
        assert answer.headers["x-fal-request-id"] == running
        assert server.finish(running).status_code == 499
        server.until_heard_again()
        assert server.status(waiting)["status"] == "IN_QUEUE"
    finally:
        drain(False)
        server.cancel(running)
    assert server.finish(waiting).status_code == 200
    assert server.http.post(f"/admin/requests/{running}/cancel").json() == {"status": "ALREADY_COMPLETED"}


def test_a_webhook_that_was_given_up_is_delivered_again(api: TestClient, database: sa.Engine) -> None:
    answer = api.post(f"/queue/{APP}", json={}, params={"fal_webhook": "https://93.184.216.34/secret"})
    request_id = answer.json()["request_id"]
    with database.begin() as transaction:
        transaction.execute(webhook_table.update().values(state="failed", attempts=10, outcome="HTTP 500"))
    (told,) = overview(api)["webhooks"]["latest"]
    assert (told["state"], told["attempts"], told["outcome"], told["host"]) == (
        "failed", 10, "HTTP 500", "93.184.216.34",
    )  # fmt: skip
    answer = api.post(f"/admin/webhooks/{request_id}/redeliver")
    assert (answer.status_code, answer.json()) == (202, {"request_id": request_id, "state": "pending"})
    webhooks = overview(api)["webhooks"]
    assert (webhooks["pending"], webhooks["failed"], webhooks["latest"][0]["attempts"]) == (1, 0, 0)
    assert api.post(f"/admin/webhooks/{submit(api)}/redeliver").status_code == 404


@pytest.mark.parametrize(
    ("query", "loc"),
    [
        ({"limit": 10_001}, "limit"),
        ({"limit": "all"}, "limit"),
        ({"status": "COMPLETED"}, "status"),
        ({"owner": "a\0"}, "owner"),
    ],
)
def test_a_list_that_cannot_be_asked_for_names_the_parameter(api: TestClient, query: dict[str, Any], loc: str) -> None:
    answer = api.get("/admin/requests", params=query)
    assert (answer.status_code, answer.json()["detail"][0]["loc"]) == (422, ["query", loc])


@pytest.mark.parametrize(
    ("method", "path"), [("GET", GETS[2]), *(("POST", path) for path in POSTS[1:])], ids=lambda part: part[-10:]
)
@pytest.mark.parametrize("name", [UNKNOWN, "x", "a" * 500, "🙂" * 36])
def test_there_is_one_answer_for_all_ids_that_name_nothing(api: TestClient, method: str, path: str, name: str) -> None:
    answer = api.request(method, path.replace(UNKNOWN, name))
    assert (answer.status_code, answer.json()) == (404, {"detail": "Request not found", "status": "NOT_FOUND"})


@pytest.mark.parametrize(
    ("body", "status", "kind", "loc"),
    [
        (b"", 422, "json_invalid", ["body", 0]),
        (b"{", 422, "json_invalid", ["body", 0]),
        (b"\xff\xff", 422, "json_invalid", ["body", 0]),
        (b"[true]", 422, "model_attributes_type", ["body"]),
        (b"{}", 422, "missing", ["body", "draining"]),
        (b'{"draining": "false"}', 422, "bool_type", ["body", "draining"]),
        (b'{"draining": null}', 422, "bool_type", ["body", "draining"]),
        (b'{"draining": true, "undo": 1}', 422, "extra_forbidden", ["body", "undo"]),
    ],
)
def test_a_drain_that_cannot_be_read_changes_nothing(
    api: TestClient, body: bytes, status: int, kind: str, loc: list[object]
) -> None:
    answer = api.post("/admin/drain", content=body)
    (first, *_) = answer.json()["detail"]
    assert (answer.status_code, first["type"], first["loc"]) == (status, kind, loc)


def test_a_long_body_is_refused(api: TestClient) -> None:
    answer = api.post("/admin/drain", content=json.dumps({"draining": True, "x": "x" * 2000}))
    assert (answer.status_code, answer.json()["error_type"]) == (413, "bad_request")


@pytest.mark.parametrize("origin", ["https://evil.example", "null", "http://localhost.evil.example"])
@pytest.mark.parametrize("kind", ["text/plain", "application/json", "application/x-www-form-urlencoded"])
def test_a_foreign_page_changes_nothing(api: TestClient, origin: str, kind: str) -> None:
    for path in POSTS:
        answer = api.post(path, content=b'{"draining": true}', headers={"Origin": origin, "Content-Type": kind})
        assert (answer.status_code, answer.json()["error_type"]) == (403, "forbidden")
    assert "access-control-allow-origin" not in api.get("/admin/overview", headers={"Origin": origin}).headers
    own = {"Origin": "http://127.0.0.1:8000"}
    assert api.post("/admin/drain", json={"draining": False}, headers=own).status_code == 200


def test_a_read_changes_nothing(api: TestClient) -> None:
    for path in POSTS:
        assert api.get(path).status_code == 405


@pytest.fixture(scope="module")
def keyed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[TestClient, dict[str, str]]]:
    folder = tmp_path_factory.mktemp("keyed")
    with open_api(folder, api={"metrics_token": TOKEN, "proxy_owner": "local", "keys_reload_s": 1e-9}) as client:
        table = KeyTable(create_engine(f"sqlite:///{folder / 'hunyuan-custom.sqlite'}"))
        shown = {"operator": f"Key {table.create('local')}", "alice": f"Key {table.create('alice')}"}
        yield client, shown | {"metrics": f"Bearer {TOKEN}", "wrong": "Key a:b", "nothing": ""}


@pytest.mark.parametrize(
    ("who", "status"), [("operator", 200), ("alice", 403), ("metrics", 401), ("wrong", 401), ("nothing", 401)]
)
def test_where_keys_are_the_operator_alone_is_let_in(
    keyed: tuple[TestClient, dict[str, str]], who: str, status: int
) -> None:
    client, shown = keyed
    headers = {"Authorization": shown[who]} if shown[who] else {}
    answer = client.get("/admin/overview", headers=headers)
    assert (answer.status_code, "queue" in answer.json()) == (status, status == 200)
    expected = {200: {200, 404}}.get(status, {status})
    assert {client.get(path, headers=headers).status_code for path in GETS} == expected
    assert {client.post(path, json={"draining": False}, headers=headers).status_code for path in POSTS} == expected


def test_the_proxy_does_not_lead_there(keyed: tuple[TestClient, dict[str, str]]) -> None:
    client, _ = keyed
    for target in ("https://queue.fal.run/admin/overview", "http://127.0.0.1:8000/admin/requests"):
        assert client.get("/api/fal/proxy", headers={"x-fal-target-url": target}).status_code in {400, 404}
