"""Bodies in every encoding of JSON, and strings that were cut through an emoji."""

import json
import time

import pytest

from server.fal.json_text import parse_json

VALUE = {"prompt": "ä 👩 \\ud83d", "image_url": "x", "n": [1, 2.5, None, True]}


@pytest.mark.parametrize(
    "encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le", "utf-32-be"]
)
@pytest.mark.parametrize("ascii_only", [True, False])
def test_every_encoding_that_json_loads_knows(encoding: str, ascii_only: bool) -> None:
    body = json.dumps(VALUE, ensure_ascii=ascii_only).encode(encoding)
    assert parse_json(body) == json.loads(body) == VALUE


@pytest.mark.parametrize(
    ("body", "prompt"),
    [
        (rb'"\ud83d"', "\ufffd"),
        (rb'"a\udc69b"', "a\ufffdb"),
        (rb'"\ud83d\ud83d\udc69"', "\ufffd👩"),
        (rb'"\uD83D\uDC69\uDC69"', "👩\ufffd"),
        (rb'"\\ud83d \ud83d"', "\\ud83d \ufffd"),
        (rb'"\\\ud83d\n"', "\\\ufffd\n"),
        (b'"\xed\xa0\xbd"', "\ufffd"),
        (b'"\xed\xa0\xbd\xed\xb1\xa9\xed\xa0\xbd\xed\x9f\xbf"', "👩\ufffd\ud7ff"),
        ('"\ud83d"'.encode("utf-16", "surrogatepass"), "\ufffd"),
        ('"\ud83d"'.encode("utf-32", "surrogatepass"), "\ufffd"),
    ],
)
def test_half_an_emoji_is_replaced_and_nothing_else(body: bytes, prompt: str) -> None:
    assert parse_json(body) == prompt
    kept = bytearray(body)
    assert parse_json(kept) == prompt
    assert not kept, "it is not there twice"


@pytest.mark.parametrize(
    "text", ["", "{", "[NaN]", "[Infinity]", "[-Infinity]", "[" * 5000 + "]" * 5000, '["\\ud83d", NaN]', "nul"]
)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
def test_what_is_no_json_is_none_in_any_encoding(text: str, encoding: str) -> None:
    with pytest.raises(ValueError):
        parse_json(text.encode(encoding))


@pytest.mark.parametrize("body", [b"\xff", b"\x00", b'"\xff"', b'{"a\x00": 1}', b"\xff\xfe\x00"])
def test_bytes_that_are_no_text_are_refused(body: bytes) -> None:
    with pytest.raises(ValueError):
        parse_json(body)


def test_the_time_grows_with_the_length() -> None:
    def seconds(count: int, piece: bytes) -> float:
        body, started = b'"' + piece * count + rb'\ud83d"', time.process_time()
        parse_json(body)
        return time.process_time() - started

    for piece in (rb"\\", rb"\ud83d", rb"\ud83d\udc69", b"a"):
        assert seconds(90_000, piece) < 20 * max(seconds(9_000, piece), 0.005)


def test_other_escapes_are_not_counted() -> None:
    """PHP writes every slash of a data: URI as an escape."""
    assert parse_json(b'"' + rb"\/" * 500_000 + rb'\ud83d"') == "/" * 500_000 + "\ufffd"
