"""`data:` URIs in the forms that programs make."""

import base64
from urllib.parse import quote

import pytest

from server.errors import FileTooLarge, ImageLoadError
from server.fal.data_uri import decode_data_uri
from tests.harness.data_uris import SPELLINGS

CONTENT = bytes(range(256)) * 300  # longer than the pieces in which percent signs are decoded
LIMIT = len(CONTENT)


@pytest.mark.parametrize("name", SPELLINGS)
def test_every_spelling_is_decoded(name: str) -> None:
    assert decode_data_uri(SPELLINGS[name](CONTENT).strip(), max_bytes=LIMIT) == CONTENT


@pytest.mark.parametrize("shift", range(3))
def test_no_percent_sign_is_cut_from_its_digits(shift: int) -> None:
    content = b"x" * shift + b"\xff" * 100_000
    assert decode_data_uri(f"data:,{quote(content)}", max_bytes=200_000) == content
    scattered = b"x" * (65536 - 3 + shift) + b"\xff" * 3
    assert decode_data_uri(f"data:,{quote(scattered)}", max_bytes=200_000) == scattered
    assert decode_data_uri(f"data:,{'%' * 70_000}", max_bytes=200_000) == b"%" * 70_000


@pytest.mark.parametrize(
    "uri",
    [
        "data:;base64,@@@@",
        "data:;base64,QUJD=QUJD",
        "data:;base64,QUJDR",
        "data:;base64,QU-_",
        "data:;base64,\u00e9\u00e9\u00e9\u00e9",
        "data:;base64,\uff21\uff21\uff21\uff21",
        "data:;base64,%C3%A9%C3%A9",
        "data:;base64,\ud800",
        "data:;base64,",
        "data:image/png;base64",
        "data:,",
        "data:",
    ],
)
def test_what_is_broken_is_refused(uri: str) -> None:
    with pytest.raises(ImageLoadError):
        decode_data_uri(uri, max_bytes=LIMIT)


def test_the_decoded_size_is_limited() -> None:
    for uri in (f"data:;base64,{base64.b64encode(CONTENT + b'more').decode()}", f"data:,{quote(CONTENT + b'x')}"):
        with pytest.raises(FileTooLarge):
            decode_data_uri(uri, max_bytes=LIMIT)
    wrapped = base64.encodebytes(CONTENT).decode()
    assert len(decode_data_uri(f"data:;base64,{wrapped}", max_bytes=LIMIT)) == LIMIT, "whitespace does not count"
