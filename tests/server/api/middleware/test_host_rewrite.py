"""Host, prefix, bare path and proxy header all lead to the same routes."""

from pathlib import Path
from typing import Any

import pytest

from server.api.access.key_table import KeyTable
from server.db.connection import create_engine
from tests.harness.in_process import open_api
from tests.harness.live_server import APP, Server, example


@pytest.mark.parametrize("by", ["prefix", "host", "proxy", "proxied own address"])
def test_the_address_tells_run_from_queue(server: Server, by: str) -> None:
    """An invalid body shows which it was: run refuses it, the queue accepts it."""

    def post(app_host: str, prefix: str) -> int:
        if by == "prefix":
            return server.http.post(f"/{prefix}/{APP}", json={}).status_code
        if by == "host":
            return server.http.post(f"/{APP}", json={}, headers={"Host": app_host}).status_code
        target = f"https://{app_host}/{APP}" if by == "proxy" else f"{server.url}/{prefix}/{APP}"
        return server.http.post("/api/fal/proxy", json={}, headers={"x-fal-target-url": target}).status_code

    assert (post("fal.run", "run"), post("queue.fal.run", "queue")) == (422, 200)


def test_the_proxy_path_passes_method_query_and_body(server: Server) -> None:
    def proxied(method: str, target: str, **more: object) -> tuple[int, object]:
        headers = {"x-fal-target-url": f"https://queue.fal.run/{APP}{target}"}
        answer = server.http.request(method, "/api/fal/proxy", headers=headers, **more)  # type: ignore[arg-type]
        return answer.status_code, answer.json()

    code, body = proxied("POST", "", json=example(prompt="WORKS_SLOWLY"))
    assert code == 200
    assert isinstance(body, dict)
    request_id = body["request_id"]
    assert body["status_url"].startswith(f"{server.url}/queue/")
    server.until_running(request_id)
    code, body = proxied("GET", f"/requests/{request_id}/status?logs=1")
    assert (code, isinstance(body["logs"], list)) == (202, True)  # type: ignore[index]
    assert proxied("PUT", f"/requests/{request_id}/cancel")[0] == 202
    server.finish(request_id)
    assert proxied("GET", f"/requests/{request_id}")[0] == 499


@pytest.mark.parametrize(
    "target",
    [
        "https://example.com/",
        "http://169.254.169.254/latest/meta-data",
        "https://fal.run.example.com/fal-ai/hunyuan-custom",
        "https://fal.run@example.com/",
        "file:///etc/passwd",
        "https://[::1",
        "//fal.run/fal-ai/hunyuan-custom",
        "",
        "https://fal.run/health/live",
        "https://fal.run/api/fal/proxy",
    ],
)
def test_the_proxy_path_leads_nowhere_else(server: Server, target: str) -> None:
    answer = server.http.post("/api/fal/proxy", json={}, headers={"x-fal-target-url": target})
    assert (answer.status_code, answer.json()["detail"]) == (400, "Invalid request")
    assert answer.headers["x-fal-request-id"]


@pytest.mark.parametrize(
    ("settings", "headers", "target", "reached"),
    [
        ({"public_base_url": "https://gpu.example/hc"}, {}, "https://gpu.example/hc/queue", True),
        ({"public_base_url": "https://gpu.example/hc"}, {}, "https://gpu.example/queue", False),
        ({"public_base_url": "https://gpu.example/hc"}, {}, "https://gpu.example/hcx/queue", False),
        ({"trusted_proxies": ["127.0.0.1"]}, {"X-Forwarded-Host": "gpu.example"}, "https://gpu.example/queue", True),
        ({}, {"X-Forwarded-Host": "gpu.example"}, "https://gpu.example/queue", False),
    ],
)
def test_the_proxy_path_knows_the_address_of_its_server(
    tmp_path: Path, settings: dict[str, Any], headers: dict[str, str], target: str, reached: bool
) -> None:
    api = open_api(tmp_path, api=settings, keyed=True)
    url = f"{target}/{APP}/requests/x/status"
    answer = api.get("/api/fal/proxy", headers={"x-fal-target-url": url, **headers})
    expected = (404, "Request not found") if reached else (400, "Invalid request")
    assert (answer.status_code, answer.json()["detail"]) == expected


def test_browser_applications_behind_the_proxy_path_may_go_without_a_key(tmp_path: Path) -> None:
    api = open_api(tmp_path, api={"proxy_owner": "web"})
    KeyTable(create_engine(f"sqlite:///{tmp_path / 'hunyuan-custom.sqlite'}")).create("alice")
    proxied = {"x-fal-target-url": f"https://queue.fal.run/{APP}"}
    made = api.post("/api/fal/proxy", json={}, headers=proxied)
    assert made.status_code == 200
    status = {"x-fal-target-url": f"https://queue.fal.run/{APP}/requests/{made.json()['request_id']}/status"}
    assert api.get("/api/fal/proxy", headers=status).status_code == 200
    assert api.post("/api/fal/proxy", json={}, headers=proxied | {"Authorization": "Key a:b"}).status_code == 401
    assert api.post(f"/queue/{APP}", json={}).status_code == 401


def test_a_configured_name_has_a_queue_host_too(tmp_path: Path) -> None:
    api = open_api(tmp_path, api={"allowed_hosts": ["mybox.lan"]})
    answer = api.post(f"/{APP}", json={}, headers={"Host": "queue.mybox.lan:8000"})
    assert answer.json()["status_url"].startswith("http://queue.mybox.lan:8000/queue/")
    assert api.post(f"/{APP}", json={}, headers={"Host": "queue.other.lan"}).status_code == 403


def test_the_proxy_path_needs_its_header(server: Server) -> None:
    answer = server.http.get("/api/fal/proxy")
    assert (answer.status_code, answer.json()["detail"]) == (400, "Missing the x-fal-target-url header")


def test_nothing_is_ever_redirected(server: Server) -> None:
    for path in (f"/queue/{APP}/", f"/run/{APP}/", f"/{APP}/"):
        assert server.http.post(path, json={}).status_code in {200, 422}
    request_id = server.http.post(f"/queue/{APP}/", json={}).json()["request_id"]
    for suffix in ("/status/", "/status/", "/"):
        answer = server.http.get(f"/queue/{APP}/requests/{request_id}{suffix}", headers={"Accept": "text/html"})
        assert answer.headers["content-type"] == "application/json"
        assert answer.status_code in {200, 422}


@pytest.mark.parametrize(
    "path", [f"/queue/{APP}/requests/%00/status", "/health/live%0a", f"/{APP}/x%0d%0a/requests/y", "/%7f"]
)
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_control_character_in_a_path_is_404(server: Server, method: str, path: str) -> None:
    answer = server.http.request(method, path)
    what = "Request" if "/requests/" in path else "Path"
    assert (answer.status_code, answer.json()) == (404, {"detail": f"{what} not found", "status": "NOT_FOUND"})
    assert answer.headers["x-fal-request-id"]
    proxied = server.http.get("/api/fal/proxy", headers={"x-fal-target-url": f"https://queue.fal.run{path}"})
    assert proxied.status_code == 404
