"""Keys: who gets in, what belongs to whom, and the commands that make and end them."""

import re
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
from typer.testing import CliRunner

from server.api.access.key_ring import KeyRing
from server.api.access.key_table import KeyTable, first_key
from server.cli.main import app
from server.db.connection import create_engine
from server.db.migrations import migrate
from server.errors import SettingsError
from server.fal.example import PHOTO
from server.settings import ApiSettings, is_loopback, is_reached_from_elsewhere
from tests.harness.command import run_command
from tests.harness.harmless import harmless
from tests.harness.in_process import open_api
from tests.harness.keyed import client, create_key, use_key
from tests.harness.live_server import APP, FAST, Server, example, launch, until

NOT_FOUND = {"detail": "Request not found", "status": "NOT_FOUND"}


@pytest.fixture(scope="module")
def locked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Server, str, str]]:
    """A server with two owners, and a key of each."""
    limits = {"limits__max_queue_per_owner": 3, "limits__max_queue": 5, "limits__posts_burst": 25,
              "limits__posts_per_s": 20}  # fmt: skip
    server = launch(tmp_path_factory.mktemp("locked"), **(FAST | limits))
    alice, bob = create_key(server, "alice"), create_key(server, "bob")
    use_key(server, alice)
    yield server, alice, bob
    server.stop()


def test_generate_shows_its_key(
    locked: tuple[Server, str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server, alice, _ = locked
    words = ("generate", str(PHOTO), "AT_ONCE", "-o", str(tmp_path / "x.mp4"), "--server", server.url)
    monkeypatch.delenv("FAL_KEY", raising=False)
    for key, code, line in (
        ("", 2, "error: Authentication is required to access this application."),
        ("a:b", 2, "error: No user found for Key ID and Secret"),
        ("a\nb", 2, "error: --key or FAL_KEY: a key is made of visible ASCII characters"),
        (alice, 0, ""),
    ):
        monkeypatch.setenv("FAL_KEY", key)
        ran = run_command(*words)
        assert (ran.code, ran.err.splitlines()[-1] if code else "") == (code, line), ran.err


def command(data_dir: Path, *words: str) -> str:
    done = CliRunner().invoke(app, [*words, "--data-dir", str(data_dir)])
    assert done.exit_code == 0, done.output
    return done.stdout


PROTECTED = [
    ("POST", f"/queue/{APP}"),
    ("POST", f"/run/{APP}"),
    ("POST", f"/{APP}"),
    ("GET", f"/queue/{APP}/requests/x/status"),
    ("GET", f"/queue/{APP}/requests/x/status/stream"),
    ("GET", f"/queue/{APP}/requests/x"),
    ("PUT", f"/queue/{APP}/requests/x/cancel"),
    ("POST", "/rest/storage/upload/initiate"),
    ("POST", "/rest/storage/auth/token"),
    ("POST", "/cdn/files/upload"),
]
OPEN = ["/health/live", "/health/ready", "/.well-known/jwks.json", "/rest/.well-known/jwks.json"]


@pytest.mark.parametrize(("method", "path"), PROTECTED)
@pytest.mark.parametrize(
    "authorization",
    [
        None,
        "",
        "Key",
        "Key x",
        "Key a:b",
        "Basic YTpi",
        "Bearer x:y",
        "Token a:b",
        "Key é:ü",
        "Key " + "x" * 9000 + ":y",
    ],
)
def test_without_a_good_key_everything_is_401(
    locked: tuple[Server, str, str], method: str, path: str, authorization: str | None
) -> None:
    server, *_ = locked
    headers = {} if authorization is None else {"Authorization": authorization.encode()}
    with harmless(server):
        answer = client(server).request(method, path, headers=headers, content=b"{}" if method == "POST" else None)
    assert answer.status_code == 401
    assert isinstance(answer.json()["detail"], str)
    assert answer.headers["x-fal-request-id"]


def test_a_half_right_key_is_wrong(locked: tuple[Server, str, str]) -> None:
    server, alice, bob = locked
    key_id, _, secret = alice.partition(":")
    for wrong in (f"{key_id}:{secret[:-1]}", f"{key_id}:", f":{secret}", f"{key_id}:{bob.partition(':')[2]}", secret):
        assert client(server, wrong).get(f"/queue/{APP}/requests/x").status_code == 401


@pytest.mark.parametrize("scheme", ["Key", "key", "Bearer", "KEY"])
def test_key_and_bearer_are_the_same(locked: tuple[Server, str, str], scheme: str) -> None:
    server, alice, _ = locked
    answer = server.http.get(f"/queue/{APP}/requests/x", headers={"Authorization": f"{scheme} {alice}"})
    assert (answer.status_code, answer.json()) == (404, NOT_FOUND)


@pytest.mark.parametrize("path", OPEN)
def test_some_places_need_no_key(locked: tuple[Server, str, str], path: str) -> None:
    assert httpx.get(f"{locked[0].url}{path}", trust_env=False, timeout=60).status_code == 200


def test_readiness_shows_no_internals_without_a_key(locked: tuple[Server, str, str]) -> None:
    server, *_ = locked
    (seen,) = client(server).get("/health/ready").json()["workers"]
    (known,) = server.http.get("/health/ready").json()["workers"]
    assert known.keys() - seen.keys() == {"pid", "generator_pid", "detail"}
    assert seen["state"] == "ready"


def test_a_server_with_keys_answers_to_any_name_and_page(locked: tuple[Server, str, str]) -> None:
    server, *_ = locked
    headers = {"Host": "videos.example", "Origin": "https://app.example"}
    assert server.http.post(f"/queue/{APP}", json=example(prompt=""), headers=headers).status_code == 200


def test_another_owners_request_is_not_there(locked: tuple[Server, str, str]) -> None:
    server, _, bob = locked
    request_id = server.submit()
    other = client(server, bob)
    for path in ("", "/status", "/status/stream", "/response"):
        answer = other.get(f"/queue/{APP}/requests/{request_id}{path}")
        assert (answer.status_code, answer.json()) == (404, NOT_FOUND)
    answer = other.put(f"/queue/{APP}/requests/{request_id}/cancel")
    assert (answer.status_code, answer.json()) == (404, NOT_FOUND)
    assert server.finish(request_id).status_code == 200
    url = server.result(request_id).json()["video"]["url"]
    assert httpx.get(url, trust_env=False, timeout=60).status_code == 200, "a video is public to all who know its URL"


def test_an_owners_keys_see_the_same_requests(locked: tuple[Server, str, str]) -> None:
    server, *_ = locked
    request_id = server.submit()
    second = create_key(server, "alice")
    assert client(server, second).get(f"/queue/{APP}/requests/{request_id}/status").status_code in {200, 202}


def test_the_queue_is_capped_per_owner_and_in_all(locked: tuple[Server, str, str]) -> None:
    server, _, bob = locked
    blocker = server.submit(example(prompt="WORKS_SLOWLY"))
    server.until_running(blocker)
    waiting = [server.submit() for _ in range(3)]
    before = _sent_images(server)
    refused = server.http.post(f"/queue/{APP}", json=example())
    assert refused.status_code == 429
    assert int(refused.headers["retry-after"]) >= 1
    assert refused.headers["x-fal-request-id"]
    assert "your requests" in refused.json()["detail"]
    other = client(server, bob)
    answers = [other.post(f"/queue/{APP}", json=example()) for _ in range(3)]
    assert [answer.status_code for answer in answers] == [200, 200, 429]
    assert "queue is full" in answers[-1].json()["detail"]
    assert _sent_images(server) - before == 2, "of a refused request nothing stays"
    for request_id in waiting:
        server.cancel(request_id)
    for answer in answers[:2]:
        assert other.put(f"/queue/{APP}/requests/{answer.json()['request_id']}/cancel").status_code == 202
    server.cancel(blocker)
    server.finish(blocker)


def _sent_images(server: Server) -> int:
    return sum(path.is_file() and not path.suffix for path in (server.data_dir / "inputs").rglob("*"))


def _is_prepared(server: Server, request_id: str) -> bool:
    return any((server.data_dir / "inputs").rglob(f"{request_id}.png"))


def test_owners_take_turns(locked: tuple[Server, str, str]) -> None:
    server, _, bob = locked
    blocker = server.submit(example(prompt="WORKS_SLOWLY"))
    server.until_running(blocker)
    mine = [server.submit() for _ in range(3)]
    other = client(server, bob)
    theirs = [str(other.post(f"/queue/{APP}", json=example()).json()["request_id"]) for _ in range(2)]

    def position(caller: httpx.Client, request_id: str) -> int:
        return int(caller.get(f"/queue/{APP}/requests/{request_id}/status").json()["queue_position"])

    # Alice's blocker was her first turn, so Bob's first comes next, then hers, his second, hers ...
    positions = {"a": [position(server.http, one) for one in mine], "b": [position(other, one) for one in theirs]}
    assert sorted(positions["a"] + positions["b"]) == [0, 1, 2, 3, 4], "positions are a permutation"
    assert positions["b"] == [0, 2], "Bob waits for one job of Alice at a time"
    until(lambda: all(_is_prepared(server, one) for one in mine + theirs))
    server.cancel(blocker)
    finished = {}
    for caller, requests in ((server.http, mine), (other, theirs)):
        for one in requests:
            status_of = f"/queue/{APP}/requests/{one}/status?logs=1"
            until(lambda c=caller, s=status_of: c.get(s).json()["status"] == "COMPLETED")  # type: ignore[misc]
            finished[one] = caller.get(status_of).json()["logs"][-1]["timestamp"]
    order = sorted(finished, key=lambda one: finished[one])
    assert order == [theirs[0], mine[0], theirs[1], mine[1], mine[2]]


def test_posts_are_limited_and_reads_are_not(locked: tuple[Server, str, str]) -> None:
    server, *_ = locked
    with ThreadPoolExecutor(4) as callers:  # faster than is allowed, on a busy machine too
        answers = list(callers.map(lambda _: server.http.post("/rest/storage/auth/token"), range(120)))
    refused = [answer for answer in answers if answer.status_code == 429]
    assert refused
    assert refused[0].headers["retry-after"] == "1"
    assert all(server.http.get(f"/queue/{APP}/requests/x").status_code == 404 for _ in range(100))
    until(lambda: server.http.post("/rest/storage/auth/token").status_code == 200)


def test_keys_are_created_listed_rotated_and_revoked(tmp_path: Path) -> None:
    first = command(tmp_path, "keys", "create", "alice", "--name", "laptop").strip()
    assert re.fullmatch(r"[0-9a-f-]{36}:[0-9a-f]{64}", first)
    listed = command(tmp_path, "keys", "list")
    assert "alice  laptop" in listed
    assert "active" in listed
    key_id, _, secret = first.partition(":")
    assert secret not in listed
    assert secret.encode() not in (tmp_path / "hunyuan-custom.sqlite").read_bytes()
    second = command(tmp_path, "keys", "rotate", key_id).strip()
    ring = KeyRing(create_engine(f"sqlite:///{tmp_path / 'hunyuan-custom.sqlite'}"), always_required=False)
    assert ring.owner_of(f"Key {second}") == "alice"
    with pytest.raises(Exception, match="No user found"):
        ring.owner_of(f"Key {first}")
    command(tmp_path, "keys", "revoke", second.partition(":")[0])
    for words in (["revoke", key_id], ["rotate", "nobody"], ["create", "a b"]):
        failed = CliRunner().invoke(app, ["keys", *words, "--data-dir", str(tmp_path)])
        assert isinstance(failed.exception, SettingsError), "one line on stderr and exit code 2"


def test_a_rotated_key_may_live_on_for_a_while(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'db'}"
    migrate(url, tmp_path / "lock")
    now = time.time()
    table = KeyTable(create_engine(url), clock=lambda: now)
    old = table.create("alice")
    new = table.rotate(old.partition(":")[0], grace_s=60)
    ring = KeyRing(create_engine(url), always_required=False)
    assert ring.owner_of(f"Key {old}") == ring.owner_of(f"Key {new}") == "alice"


def test_a_rotation_that_fails_leaves_things_as_they_were(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'db'}"
    migrate(url, tmp_path / "lock")
    table = KeyTable(create_engine(url))
    key_id = table.create("alice").partition(":")[0]
    table.revoke(key_id)
    with pytest.raises(SettingsError, match="revoked already"):
        table.rotate(key_id)
    assert [key.id for key in table.all()] == [key_id]


def test_a_server_whose_last_key_was_revoked_is_closed(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'db'}"
    migrate(url, tmp_path / "lock")
    table, ring = KeyTable(create_engine(url)), KeyRing(create_engine(url), always_required=False)
    assert not ring.required()
    key = table.create("alice")
    assert ring.required()
    table.revoke(key.partition(":")[0])
    assert ring.required()
    with pytest.raises(Exception, match="No user found"):
        ring.owner_of(f"Key {key}")
    assert first_key(create_engine(url)) is None, "there have been keys, so none is made"


def test_beyond_loopback_a_first_key_is_made_and_shown_once(
    start_server: Callable[..., Server], tmp_path: Path
) -> None:
    # The wildcard address accepts connections on loopback too, which is where this test stays.
    server = start_server(ready=False, api__host="0.0.0.0")  # noqa: S104
    server.http.base_url = server.url.replace("0.0.0.0", "127.0.0.1")  # noqa: S104
    assert server.http.get(f"/queue/{APP}/requests/x").status_code == 401
    assert server.process.stdout is not None
    shown = server.process.stdout.readline()
    assert shown.startswith("First key, shown this once")
    database = create_engine(f"sqlite:///{tmp_path / 'hunyuan-custom.sqlite'}")
    assert KeyRing(database, always_required=True).owner_of(f"Bearer {shown.split()[-1]}") == "local"
    assert first_key(database) is None, "the next start makes none"


@pytest.mark.parametrize("api", [{"public_base_url": "https://videos.example"}, {"trusted_proxies": ["127.0.0.1"]}])
def test_behind_a_proxy_keys_are_needed(tmp_path: Path, api: dict[str, object]) -> None:
    with open_api(tmp_path, api=api) as keyless:
        assert keyless.post(f"/queue/{APP}", json=example()).status_code == 401


def test_behind_a_proxy_a_first_key_is_made_and_shown_once(start_server: Callable[..., Server]) -> None:
    """The listener is on loopback, and the world comes in through the proxy all the same."""
    server = start_server(ready=False, api__public_base_url="https://videos.example/hc")
    assert server.process.stdout is not None
    shown = server.process.stdout.readline()
    assert shown.startswith("First key, shown this once")
    proxied = {"Host": "127.0.0.1", "X-Forwarded-For": "203.0.113.7"}
    refused = server.http.post(f"/queue/{APP}", json=example(), headers=proxied)
    assert refused.status_code == 401
    use_key(server, shown.split()[-1])
    assert server.http.post(f"/queue/{APP}", json=example(prompt=""), headers=proxied).status_code == 200


@pytest.mark.parametrize("name", ["Forwarded", "X-Forwarded-For", "X-Forwarded-Host", "x-forwarded-anything"])
def test_a_server_without_keys_takes_no_forwarded_calls(server: Server, name: str) -> None:
    """A proxy that is not in the settings does not open the server to others."""
    for method, path in (("POST", f"/queue/{APP}"), ("GET", f"/queue/{APP}/requests/x"), ("GET", "/health/live")):
        answer = server.http.request(method, path, headers={name: "for=203.0.113.7"})
        assert (answer.status_code, answer.json()["error_type"]) == (403, "forbidden")


@pytest.mark.parametrize(
    ("api", "elsewhere"),
    [
        ({}, False),
        ({"public_base_url": "http://localhost:9000/hc"}, False),
        ({"public_base_url": "https://fal.localhost"}, False),
        ({"public_base_url": "http://[::1]:8000"}, False),
        ({"public_base_url": "https://videos.example"}, True),
        ({"public_base_url": "http://192.168.1.5:8000"}, True),
        ({"public_base_url": "https://localhost.example"}, True),
        ({"trusted_proxies": ["127.0.0.1"]}, True),
        ({"host": "0.0.0.0"}, True),  # noqa: S104
    ],
)
def test_who_needs_keys_is_read_from_the_settings(api: dict[str, object], elsewhere: bool) -> None:
    assert is_reached_from_elsewhere(ApiSettings.model_validate(api)) is elsewhere


def test_an_upload_needs_a_key_and_its_token_stands_for_it(locked: tuple[Server, str, str]) -> None:
    server, *_ = locked
    until(lambda: server.http.post("/rest/storage/upload/initiate", json={}).status_code == 200)
    urls = server.http.post("/rest/storage/upload/initiate", json={}).json()
    keyless = client(server)
    assert keyless.put(urls["upload_url"], content=PHOTO.read_bytes()).status_code == 200
    assert keyless.get(urls["file_url"]).status_code == 200, "media are public to all who know the URL"


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "::1", "localhost"])
def test_only_this_machine_reaches_a_loopback_address(host: str) -> None:
    assert is_loopback(host)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.1", "example.com", "", "localhost.example"])  # noqa: S104
def test_everything_else_is_beyond(host: str) -> None:
    assert not is_loopback(host)


def test_an_open_stream_ends_with_its_key(start_server: Callable[..., Server]) -> None:
    """Within seconds, though the request goes on; a stream of another key of the same owner goes on too."""
    server = start_server()
    key, other = create_key(server, "alice"), create_key(server, "alice")
    use_key(server, other)
    request_id = server.submit(example(prompt="WORKS_SLOWLY"))
    server.until_running(request_id)
    path = f"/queue/{APP}/requests/{request_id}/status/stream"
    with client(server, key).stream("GET", path) as stream, client(server, other).stream("GET", path) as goes_on:
        parts, others = stream.iter_raw(), goes_on.iter_raw()
        next(parts), next(others)
        started = time.monotonic()
        table = KeyTable(create_engine(f"sqlite:///{server.data_dir / 'hunyuan-custom.sqlite'}"))
        table.revoke(key.partition(":")[0])
        list(parts)
        assert time.monotonic() - started < 10
        assert client(server, key).get(path).status_code == 401
        assert server.status(request_id)["status"] == "IN_PROGRESS"
        server.cancel(request_id)
        assert "COMPLETED" in b"".join(others).decode()
