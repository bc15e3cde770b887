"""Foreign websites: a server without keys answers to names and pages of this machine only."""

import json

import pytest

from tests.harness.live_server import APP, Server, example


@pytest.mark.parametrize(
    "host",
    ["localhost", "LOCALHOST:1234", "queue.localhost", "127.0.0.1:8000", "127.9.9.9", "[::1]:8000", "fal.run",
     "queue.fal.run", "rest.fal.ai", "v3.fal.media"],
)  # fmt: skip
def test_a_server_without_keys_answers_to_names_of_this_machine(server: Server, host: str) -> None:
    assert server.http.get("/queue/x", headers={"Host": host}).status_code == 404


@pytest.mark.parametrize(
    "host",
    ["evil.example", "127.0.0.1.evil.example", "queue.evil.example", "localhost.evil.example", "8.8.8.8", "0.0.0.1",
     "[2606:2800:220:1::1]", "fal.run.evil.example", "[::1", "localhost@evil.example", "xn--localhost-"],
)  # fmt: skip
@pytest.mark.parametrize("path", [f"/queue/{APP}", "/health/live", "/queue/x"])
def test_a_rebound_name_is_403(server: Server, host: str, path: str) -> None:
    answer = server.http.get(path, headers={"Host": host})
    assert (answer.status_code, answer.json()["error_type"]) == (403, "forbidden")


@pytest.mark.parametrize(
    "origin", ["https://evil.example", "null", "http://localhost.evil.example", "file://", "http://[::1", "http://"]
)
def test_a_foreign_page_changes_nothing(server: Server, origin: str) -> None:
    headers = {"Origin": origin}
    body = json.dumps(example())
    for path in (f"/queue/{APP}", f"/run/{APP}", "/rest/storage/upload/initiate", "/api/fal/proxy"):
        answer = server.http.post(path, content=body, headers=headers | {"Content-Type": "text/plain"})
        assert answer.status_code == 403
    assert server.http.put(f"/queue/{APP}/requests/x/cancel", headers=headers).status_code == 403
    assert "access-control-allow-origin" not in server.http.get(f"/queue/{APP}/requests/x", headers=headers).headers


@pytest.mark.parametrize("origin", ["http://localhost:3000", "http://127.0.0.1:5173", "http://[::1]"])
def test_a_page_of_this_machine_may_submit(server: Server, origin: str) -> None:
    answer = server.http.post(f"/queue/{APP}", json=example(prompt=""), headers={"Origin": origin})
    assert answer.status_code == 200
    assert answer.headers["access-control-allow-origin"] == origin
