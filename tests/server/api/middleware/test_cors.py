"""Which pages may call, in the words browsers want."""

from pathlib import Path

import httpx
import pytest

from tests.harness.in_process import open_api
from tests.harness.live_server import APP, Server

LOCAL = ["http://localhost:3000", "http://127.0.0.1", "https://[::1]:8443"]
FOREIGN = ["https://example.com", "http://localhost.example.com", "http://127.0.0.1.example.com", "null", "file://"]


def _preflight(server: Server, origin: str, path: str = f"/queue/{APP}", **headers: str) -> httpx.Response:
    asked = {"Origin": origin, "Access-Control-Request-Method": "POST", **headers}
    return server.http.request("OPTIONS", path, headers=asked)


@pytest.mark.parametrize("origin", LOCAL)
@pytest.mark.parametrize("path", [f"/queue/{APP}", f"/run/{APP}", "/api/fal/proxy", "/files/aa/bb/c.mp4"])
def test_a_local_page_may_call(server: Server, origin: str, path: str) -> None:
    wanted = "authorization,content-type,x-fal-queue-priority,x-fal-anything-new"
    answer = _preflight(server, origin, path, **{"Access-Control-Request-Headers": wanted})
    assert answer.status_code == 204
    assert answer.headers["access-control-allow-origin"] == origin
    assert answer.headers["access-control-allow-headers"] == wanted, "echoed: * does not cover Authorization"
    assert {"GET", "POST", "PUT", "DELETE"} <= set(answer.headers["access-control-allow-methods"].split(", "))
    assert "Origin" in answer.headers["vary"]
    assert answer.headers["x-fal-request-id"]


@pytest.mark.parametrize("origin", FOREIGN)
def test_a_foreign_page_may_not(server: Server, origin: str) -> None:
    answer = _preflight(server, origin)
    assert answer.status_code == 204
    assert "access-control-allow-origin" not in answer.headers
    answer = server.http.get("/health/live", headers={"Origin": origin})
    assert "access-control-allow-origin" not in answer.headers


@pytest.mark.parametrize("path", ["/health/live", "/nothing", f"/queue/{APP}/requests/x/status"])
def test_answers_and_errors_can_be_read_by_the_page(server: Server, path: str) -> None:
    answer = server.http.get(path, headers={"Origin": LOCAL[0]})
    assert answer.headers["access-control-allow-origin"] == LOCAL[0]
    exposed = answer.headers["access-control-expose-headers"].split(", ")
    assert {"x-fal-request-id", "x-fal-error-type", "x-fal-request-timeout-type", "x-fal-billable-units"} <= set(
        exposed
    )


def test_videos_may_be_shown_by_any_page(server: Server) -> None:
    url = server.finish(server.submit()).json()["video"]["url"]
    answer = server.http.get(url, headers={"Origin": "https://example.com"})
    assert answer.headers["access-control-allow-origin"] == "*"


@pytest.mark.parametrize(
    ("origins", "origin", "allowed"),
    [
        (["*"], "https://example.com", True),
        (["https://app.example"], "https://app.example", True),
        (["https://app.example"], "http://localhost:3000", False),
        ([], "http://localhost:3000", False),
    ],
)
def test_origins_are_a_setting(tmp_path: Path, origins: list[str], origin: str, allowed: bool) -> None:
    with open_api(tmp_path, api={"cors_origins": origins}) as client:
        answer = client.get("/health/live", headers={"Origin": origin})
    assert (answer.headers.get("access-control-allow-origin") == origin) is allowed
