"""Tokens that stand for a key at an upload: for one purpose and subject, and until they expire."""

import pytest

from server.errors import Unauthorized
from server.storage.upload_tokens import UploadTokens


def test_a_token_is_good_for_its_purpose_until_it_expires() -> None:
    now = 1000.0
    tokens = UploadTokens(b"x" * 32, clock=lambda: now)
    good = tokens.issue("put", "é:b/c", ttl_s=10)
    assert good.isascii()
    assert tokens.subject("put", good) == "é:b/c"
    now = 990.0  # the clock of another machine
    assert tokens.subject("put", good) == "é:b/c"
    now = 1011.0
    with pytest.raises(Unauthorized, match="Expired"):
        tokens.subject("put", good)


def test_a_forged_token_is_refused() -> None:
    tokens = UploadTokens(b"x" * 32)
    good = tokens.issue("put", "a", ttl_s=10)
    unsigned = UploadTokens(b"y" * 32).issue("put", "a", ttl_s=10)
    cdn = tokens.issue("cdn", "a", ttl_s=10)
    for bad in (good[:-1], "x" + good, unsigned, cdn, "", ":", ".", "a.b", "put:x:1:", "é" * 70, good + "0"):
        with pytest.raises(Unauthorized, match="Invalid upload token"):
            tokens.subject("put", bad)
