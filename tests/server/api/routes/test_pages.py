"""The pages for browsers: which files there are, how they are sent, and what they may load."""

import gzip
import re
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from urllib.parse import urlsplit

import obstore
import pytest
from starlette.testclient import TestClient

from server.api.page_files import content_security_policy
from server.fal.example import PHOTO
from server.storage.s3 import _client
from tests.harness.in_process import open_api, settings_for
from tests.harness.live_server import ROOT

FILES = ROOT / "server" / "playground"
PAGE_BYTES = 150_000  # compressed, all files of a page together


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    with open_api(tmp_path_factory.mktemp("api")) as client:
        client.headers["accept-encoding"] = "gzip, deflate, br"
        yield client


def test_the_playground_needs_no_key_and_may_load_nothing_from_elsewhere(tmp_path: Path) -> None:
    with open_api(tmp_path, api={"host": "0.0.0.0"}) as caller:  # noqa: S104 - keys are required there
        assert caller.get("/playground/requests", headers={"Host": "gpu.example"}).status_code in {401, 404}
        page = caller.get("/", headers={"Host": "gpu.example"})
    assert (page.status_code, page.headers["content-type"]) == (200, "text/html; charset=utf-8")
    policy = page.headers["content-security-policy"]
    assert {"default-src 'none'", "script-src 'self'", "style-src 'self'", "frame-ancestors 'none'"} <= set(
        policy.split("; ")
    )
    assert "unsafe" not in policy
    assert not re.search(r"<script(?![^>]*\ssrc=)|<style|\sstyle=|\son[a-z]+=|https?://", page.text)


@pytest.mark.parametrize(
    "store",
    [
        {"region": "eu-central-1"},
        {"endpoint": "http://127.0.0.1:9000"},
        {"endpoint": "http://inside:9000", "public_endpoint": "https://media.example"},
    ],
)
def test_media_of_an_object_store_may_be_shown(tmp_path: Path, store: dict[str, str]) -> None:
    keys = {"access_key_id": "x", "secret_access_key": "x"}
    settings = settings_for(tmp_path, storage_url="s3://some-bucket/p", object_storage=store | keys)
    public = _client("some-bucket", store.get("public_endpoint", store.get("endpoint", "")), settings.object_storage)
    link = urlsplit(obstore.sign(public, "GET", "p/files/x.mp4", timedelta(minutes=1)))
    policy = dict(part.split(" ", 1) for part in content_security_policy(settings).split("; "))
    for kind in ("media-src", "img-src"):
        assert f"{link.scheme}://{link.netloc}" in policy[kind].split()
    assert policy["connect-src"] == "'self'"


def test_what_a_page_names_is_there(browser: TestClient) -> None:
    named = set(re.findall(r"static/([\w.-]+)", browser.get("/").text))
    assert "playground.js" in named
    waiting = set(named)
    seen: set[str] = set()
    while waiting:
        name = waiting.pop()
        seen.add(name)
        answer = browser.get(f"/static/{name}")
        assert answer.status_code == 200, name
        waiting |= set(re.findall(r'(?:from|import) "\./([\w.-]+)"', answer.text)) - seen
    assert seen == named, "a module that the page does not name is found late"
    zipped = [len(gzip.compress((FILES / name).read_bytes())) for name in [*seen, "playground.html"]]
    assert sum(zipped) < PAGE_BYTES


def test_a_file_is_sent_once(browser: TestClient) -> None:
    first = browser.get("/static/base.css")
    assert (first.headers["content-encoding"], first.headers["vary"]) == ("gzip", "Accept-Encoding")
    assert first.headers["cache-control"] == "no-cache"
    assert first.content == (FILES / "base.css").read_bytes()
    again = browser.get("/static/base.css", headers={"If-None-Match": f'"other", W/{first.headers["etag"]}'})
    assert (again.status_code, again.content) == (304, b"")
    plain = browser.get("/static/base.css", headers={"Accept-Encoding": "", "If-None-Match": first.headers["etag"]})
    assert plain.status_code == 200, "the other form has another tag"
    assert "content-encoding" not in plain.headers
    head = browser.head("/")
    assert (head.status_code, head.content) == (200, b"")
    assert int(head.headers["content-length"]) > 0


def test_a_picture_to_begin_with_is_there(browser: TestClient) -> None:
    answer = browser.get("/static/example.jpg")
    assert (answer.headers["content-type"], answer.content) == ("image/jpeg", PHOTO.read_bytes())


@pytest.mark.parametrize(
    ("accepted", "zipped"),
    [
        ("gzip", True),
        ("br, GZIP;q=0.5", True),
        ("gzip ; q=1.0, *;q=0", True),
        ("identity,gzip;q=0.001", True),
        ("gzip;q=0", False),
        ("gzip; q=0.000, br", False),
        ("notgzip", False),
        ("gzipped", False),
        ("identity", False),
    ],
)
def test_a_file_is_compressed_for_those_who_take_it(browser: TestClient, accepted: str, zipped: bool) -> None:
    answer = browser.get("/static/base.css", headers={"Accept-Encoding": accepted})
    assert ("content-encoding" in answer.headers) is zipped
    assert answer.content == (FILES / "base.css").read_bytes()


def test_helper_files_for_clients_are_downloads(browser: TestClient) -> None:
    for name in ("fal_plain_http.py", "fal_server_url.mjs"):
        answer = browser.get(f"/static/{name}")
        assert answer.headers["content-disposition"] == "attachment"
        assert answer.content == (ROOT / "server" / "clients" / name).read_bytes()


@pytest.mark.parametrize("name", ["nothing.js", "..%2fsettings.py", "playground.html", "%2e%2e", "__init__.py"])
def test_no_other_file_is_sent(browser: TestClient, name: str) -> None:
    assert browser.get(f"/static/{name}").status_code == 404


@pytest.mark.parametrize("host", ["fal.run", "queue.fal.run", "queue.localhost", "rest.fal.ai", "v3.fal.media"])
@pytest.mark.parametrize("path", ["/", "/admin", "/static/base.css"])
def test_fals_hosts_have_no_pages(browser: TestClient, host: str, path: str) -> None:
    answer = browser.get(path, headers={"Host": host})
    assert (answer.status_code, answer.headers["content-type"]) == (404, "application/json")


def test_pages_are_for_names_of_this_machine_while_there_are_no_keys(browser: TestClient) -> None:
    assert browser.get("/", headers={"Host": "evil.example"}).status_code == 403
    assert browser.post("/").status_code == 405


def test_a_slash_at_the_end_leads_to_the_page(browser: TestClient) -> None:
    answer = browser.get("/admin/", follow_redirects=False)
    assert (answer.status_code, answer.headers["location"]) == (308, "../admin")
