"""What reads texts of clients takes time by their length: ten times the length, ten times as long."""

import time
from collections.abc import Callable
from contextlib import suppress

import pytest

from server.api.middleware.cors import origin_is_allowed
from server.errors import ServerError
from server.fal.hosts import canonical_path
from server.fal.submit_headers import lifetime_s
from server.untrusted.addresses import OutboundPolicy
from server.webhooks.target import check_webhook_url

APPLICATION = "/queue/fal-ai/hunyuan-custom"
READERS: dict[str, tuple[Callable[[str], object], list[str]]] = {
    "path": (
        lambda text: canonical_path("", f"{APPLICATION}/{text}"),
        ["/requests/", "x/requests", "/", "?/requests/"],
    ),
    "host": (lambda text: canonical_path(text, "/"), ["queue.", ":", "fal.run:"]),
    "origin": (lambda text: origin_is_allowed(f"http://localhost{text}", {"local"}), ["1", ":1", "localhost"]),
    "webhook": (
        lambda text: check_webhook_url(f"http://example.com/{text}", OutboundPolicy()),
        ["/..", "%25", "@", "?a=", "#", "://"],
    ),
    "lifetime": (lifetime_s, ["[", "1", '{"a":', " "]),
}


@pytest.mark.parametrize(("reader", "part"), [(name, part) for name in READERS for part in READERS[name][1]])
def test_ten_times_the_length_takes_ten_times_as_long(reader: str, part: str) -> None:
    """Quadratic time would be a hundred times as long."""

    def seconds(repetitions: int) -> float:
        text, best = part * repetitions, float("inf")
        for _ in range(7):
            started = time.thread_time()
            with suppress(ServerError):
                READERS[reader][0](text)
            best = min(best, time.thread_time() - started)
        return best

    assert seconds(20_000) < 40 * seconds(2_000) + 0.001
