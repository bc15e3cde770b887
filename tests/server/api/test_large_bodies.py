"""A body of 30 MB keeps no other call waiting and takes little memory, whatever it is made of."""

import re
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from tests.harness.live_server import APP, Server, example

SIZE = 30 * 2**20 - 1024
OTHER_FIELDS = b'{"prompt": "a", "image_url": "http://127.0.0.1/a.png", "x": '
MANY = {
    "lists": (OTHER_FIELDS + b"[", b"[],", b"0]}"),
    "objects": (OTHER_FIELDS + b"[", b"{},", b"0]}"),
    "numbers": (OTHER_FIELDS + b"[", b"1,", b"0]}"),
    "pairs": (OTHER_FIELDS + b"{", b'"a":0,', b'"a":0}}'),
    "nested": (OTHER_FIELDS, b"[", b""),
}
WIDE = "\N{VIOLIN}".encode()  # one such letter, and Python keeps the whole text with four bytes a letter
LONG = {
    "unknown": (OTHER_FIELDS + b'"' + WIDE, b"a", b'"}'),
    "name": (OTHER_FIELDS + b'0, "' + WIDE, b"a", b'": 0}'),
    "prompt": (b'{"image_url": "http://127.0.0.1/a.png", "prompt": "' + WIDE, b"a", b'"}'),
    "url": (b'{"prompt": "a", "image_url": "' + WIDE, b"a", b'"}'),
    "data-uri": (b'{"prompt": "a", "image_url": "data:image/png;base64,' + WIDE, b"A", b'"}'),
}


def body(start: bytes, unit: bytes, end: bytes) -> bytes:
    return start + unit * ((SIZE - len(start) - len(end)) // len(unit)) + end


def peak_mb(server: Server) -> int:
    """The most memory that the process has ever had."""
    found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{server.process.pid}/status").read_text())
    assert found is not None
    return int(found[1]) // 1024


def processor_s(server: Server) -> float:
    """The time that the process has worked: no other call can wait longer, and a busy machine does not change it."""
    times = psutil.Process(server.process.pid).cpu_times()
    return float(times.user + times.system)


@pytest.mark.parametrize("kind", MANY)
def test_many_values_are_refused_before_they_are_parsed(start_api: Callable[..., Server], kind: str) -> None:
    server, content = start_api(), body(*MANY[kind])
    before = processor_s(server)
    answer = server.http.post(f"/queue/{APP}", content=content)
    assert (answer.status_code, answer.json()["error_type"]) == (413, "bad_request")
    assert "image_url" in answer.json()["detail"]
    assert processor_s(server) - before < 0.5
    assert peak_mb(server) < 300


@pytest.mark.parametrize("kind", LONG)
def test_one_long_text_takes_little_memory(start_api: Callable[..., Server], kind: str) -> None:
    server = start_api()
    before = peak_mb(server)
    assert server.http.post(f"/queue/{APP}", content=body(*LONG[kind])).status_code == 200
    assert peak_mb(server) - before < 200


def test_what_people_send_is_far_from_the_limit(server: Server) -> None:
    """Texts full of commas, unknown fields, and an image of 20 MB."""
    text = {"prompt": ",:[{" * 125, "negative_prompt": "ugly, " * 1666, "extra": [{"a": [1, 2]}] * 1000}
    request_id = server.submit(example(**text, image_url="data:image/png;base64," + "A" * (26 * 2**20)))
    assert server.finish(request_id).json()["detail"][0]["type"] != "bad_request"
    answer = server.http.post(f"/run/{APP}", content=body(*MANY["numbers"]))
    assert answer.status_code == 413
