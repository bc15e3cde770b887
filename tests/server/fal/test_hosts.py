"""Host and path of a call, as a path of this server."""

import time

import pytest

from server.errors import NotFound
from server.fal import hosts
from server.fal.hosts import canonical_path
from tests.harness.live_server import APP

ID = "requests/0b7f8e8a-0000-4000-8000-000000000000"


@pytest.mark.parametrize(
    ("host", "path", "canonical"),
    [
        ("127.0.0.1:8000", f"/{APP}", f"/run/{APP}"),
        ("127.0.0.1:8000", f"/run/{APP}/", f"/run/{APP}"),
        ("127.0.0.1:8000", f"/queue/{APP}/", f"/queue/{APP}"),
        ("127.0.0.1:8000", f"/{APP}/{ID}/status/", f"/queue/{APP}/{ID}/status"),
        ("fal.run", f"/{APP}", f"/run/{APP}"),
        ("queue.fal.run", f"/{APP}", f"/queue/{APP}"),
        ("queue.fal.run:443", f"/{APP}/{ID}", f"/queue/{APP}/{ID}"),
        ("Queue.localhost:8443", f"/{APP}", f"/queue/{APP}"),
        ("queue.localhost", f"/run/{APP}", f"/run/{APP}"),
        ("rest.fal.ai", "/storage/upload/initiate", "/rest/storage/upload/initiate"),
        ("rest.alpha.fal.ai", "/tokens/", "/rest/tokens"),
        ("v3.fal.media", "/files/upload", "/cdn/files/upload"),
        ("v3.fal.media", "/cdn/files/upload", "/cdn/files/upload"),
        ("fal.run", "/files/ab/token/x.mp4", "/files/ab/token/x.mp4"),
        ("[::1]:8000", f"/{APP}", f"/run/{APP}"),
        ("localhost", f"/queue/{APP}/sub/path/{ID}/status", f"/queue/{APP}/{ID}/status"),
        ("localhost", "/", "/"),
        ("localhost", "/health/live", "/health/live"),
    ],
)
def test_every_spelling_has_one_canonical_path(host: str, path: str, canonical: str) -> None:
    assert canonical_path(host, path) == canonical
    assert canonical_path(host, canonical) == canonical


@pytest.mark.parametrize(
    "path",
    [
        f"/queue/{APP}/requests/x/requests/y",  # "requests" begins at once: there is no subpath
        f"/queue/{APP}//requests/x",
        f"/queue/{APP}/a?b/requests/x",
        f"/run/{APP}/sub/requests/x",
        f"/queue/{APP}x/sub/requests/x",
    ],
)
def test_what_is_no_subpath_stays(path: str) -> None:
    assert canonical_path("localhost", path) == path


@pytest.mark.parametrize("character", ["\0", "\n", "\r", "\x1f", "\x7f", "\x85"])
def test_control_characters_are_in_no_path(character: str) -> None:
    with pytest.raises(NotFound, match="Request not found"):
        canonical_path("localhost", f"/queue/{APP}/requests/a{character}b/status")
    with pytest.raises(NotFound, match="Path not found"):
        canonical_path("localhost", f"/health/live{character}")


@pytest.mark.parametrize("tail", ["", "\n", "?", "/status"])
@pytest.mark.parametrize("part", ["/requests/", "/requests", "/", "?/", "a/requests/"])
def test_a_long_path_takes_time_by_its_length(part: str, tail: str) -> None:
    """Quadratic time would be a hundred times as long for ten times the length, linear time is ten times."""

    def seconds(repetitions: int) -> float:
        path = f"/queue/{APP}/x{part * repetitions}{tail}"
        best = float("inf")
        for _ in range(7):
            started = time.thread_time()
            try:
                canonical_path("localhost", path)
            except NotFound:
                assert tail == "\n"
            best = min(best, time.thread_time() - started)
        return best

    assert seconds(20_000) < 40 * seconds(2_000)


def test_a_long_path_is_not_cached() -> None:
    before = hosts._cached.cache_info().currsize
    assert canonical_path("localhost", f"/{APP}/{'x' * 5000}/") == f"/run/{APP}/{'x' * 5000}"
    assert hosts._cached.cache_info().currsize == before
