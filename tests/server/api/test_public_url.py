"""Whose word counts when URLs are made."""

from pathlib import Path

import pytest

from tests.harness.in_process import open_api
from tests.harness.live_server import APP

FORWARDED = {
    "X-Forwarded-Proto": "https",
    "X-Forwarded-Host": "videos.example",
    "X-Forwarded-Prefix": "/hc",
}


def _base(tmp_path: Path, headers: dict[str, str] | None = None, **options: object) -> str:
    address = str(options.pop("address", "127.0.0.1"))
    with open_api(tmp_path, address=address, keyed=True, api=options) as client:
        body = client.post(f"/queue/{APP}", json={}, headers=headers).json()
    base, found, _ = body["status_url"].partition(f"/queue/{APP}/requests/")
    assert found
    assert all(body[name].startswith(f"{base}/queue/") for name in ("response_url", "cancel_url"))
    return str(base)


def test_by_default_it_is_what_the_client_used(tmp_path: Path) -> None:
    assert _base(tmp_path) == "http://127.0.0.1:8000"


def test_forwarded_headers_of_unknown_addresses_are_ignored(tmp_path: Path) -> None:
    assert _base(tmp_path, FORWARDED) == "http://127.0.0.1:8000"
    elsewhere = _base(tmp_path, FORWARDED, trusted_proxies=["10.0.0.0/8"])
    assert elsewhere == "http://127.0.0.1:8000"


@pytest.mark.parametrize("proxy", ["127.0.0.0/8", "127.0.0.1"])
def test_a_configured_proxy_is_believed(tmp_path: Path, proxy: str) -> None:
    assert _base(tmp_path, FORWARDED, trusted_proxies=[proxy]) == "https://videos.example/hc"
    assert _base(tmp_path, {"X-Forwarded-Proto": "https"}, trusted_proxies=[proxy]) == "https://127.0.0.1:8000"


def test_of_several_the_nearest_proxy_counts(tmp_path: Path) -> None:
    chained = {"X-Forwarded-Host": "forged.example, videos.example", "X-Forwarded-Proto": "http, https"}
    assert _base(tmp_path, chained, trusted_proxies=["127.0.0.1"]) == "https://videos.example"


def test_the_configured_base_wins(tmp_path: Path) -> None:
    configured = "https://gpu.example:8443/videos/"
    assert _base(tmp_path, FORWARDED, public_base_url=configured, trusted_proxies=["127.0.0.1"]) == configured[:-1]


@pytest.mark.parametrize(
    "forged",
    [
        {"X-Forwarded-Host": "a b"},
        {"X-Forwarded-Host": "evil.example/path?"},
        {"X-Forwarded-Proto": "javascript"},
        {"X-Forwarded-Prefix": "/a?b"},
        {"X-Forwarded-Prefix": "//evil.example"},
    ],
)
def test_what_makes_no_url_is_400(tmp_path: Path, forged: dict[str, str]) -> None:
    with open_api(tmp_path, keyed=True, api={"trusted_proxies": ["127.0.0.1"]}) as client:
        answer = client.post(f"/queue/{APP}", json={}, headers=forged)
    assert (answer.status_code, answer.json()["error_type"]) == (400, "bad_request")
