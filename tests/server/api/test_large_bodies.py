"""A body of 30 MB keeps no other call waiting and takes little memory, whatever it is made of."""

import re
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from server.db.migrations import migrate
from tests.harness.live_server import APP, FAST, Deployment, Server, example

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
    "negative": (b'{"image_url": "http://127.0.0.1/a.png", "prompt": "a", "negative_prompt": "' + WIDE, b"a", b'"}'),
    "url": (b'{"prompt": "a", "image_url": "' + WIDE, b"a", b'"}'),
    "data-uri": (b'{"prompt": "a", "image_url": "data:image/png;base64,' + WIDE, b"A", b'"}'),
    "cut": (b'{"prompt": "a", "image_url": "' + WIDE, b"a", rb'\ud83d"}'),  # half a letter: repaired
}


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("api")
    migrate(f"sqlite:///{folder / 'hunyuan-custom.sqlite'}", folder / "migrate.lock")
    with Deployment(folder, FAST) as deployment:
        yield deployment.start_api()


def body(start: bytes, unit: bytes, end: bytes) -> bytes:
    return start + unit * ((SIZE - len(start) - len(end)) // len(unit)) + end


def forget_peak(server: Server) -> None:
    """From here on the peak is that of what follows."""
    Path(f"/proc/{server.process.pid}/clear_refs").write_text("5")


def peak_mb(server: Server) -> int:
    """The most memory that the process has had."""
    found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{server.process.pid}/status").read_text())
    assert found is not None
    return int(found[1]) // 1024


def processor_s(server: Server) -> float:
    """The time that the process has worked: no other call can wait longer, and a busy machine does not change it."""
    times = psutil.Process(server.process.pid).cpu_times()
    return float(times.user + times.system)


@pytest.mark.parametrize("kind", MANY)
def test_many_values_are_refused_before_they_are_parsed(api: Server, kind: str) -> None:
    content = body(*MANY[kind])
    forget_peak(api)
    before = processor_s(api)
    answer = api.http.post(f"/queue/{APP}", content=content)
    assert (answer.status_code, answer.json()["error_type"]) == (413, "bad_request")
    assert "image_url" in answer.json()["detail"]
    assert processor_s(api) - before < 0.5
    assert peak_mb(api) < 300


@pytest.mark.parametrize("kind", LONG)
def test_one_long_text_takes_little_memory(api: Server, kind: str) -> None:
    forget_peak(api)
    before = peak_mb(api)
    assert api.http.post(f"/queue/{APP}", content=body(*LONG[kind])).status_code == 200
    assert peak_mb(api) - before < (170 if kind in {"prompt", "negative"} else 200), "body and text, once each"
    forget_peak(api)
    assert peak_mb(api) - before < 20, "and nothing stays"


def test_what_people_send_is_far_from_the_limit(server: Server) -> None:
    """Texts full of commas, unknown fields, and an image of 20 MB."""
    text = {"prompt": ",:[{" * 125, "negative_prompt": "ugly, " * 1666, "extra": [{"a": [1, 2]}] * 1000}
    request_id = server.submit(example(**text, image_url="data:image/png;base64," + "A" * (26 * 2**20)))
    assert server.finish(request_id).json()["detail"][0]["type"] != "bad_request"
    answer = server.http.post(f"/run/{APP}", content=body(*MANY["numbers"]))
    assert answer.status_code == 413
