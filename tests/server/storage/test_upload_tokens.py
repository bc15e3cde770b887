"""Tokens that stand for a key at an upload: for one purpose and subject, and until they expire."""

import pytest

from server.db.installation_secrets import Tokens
from server.errors import Unauthorized


def test_a_forged_or_expired_token_is_refused() -> None:
    now = 1000.0
    tokens = Tokens(b"x" * 32, clock=lambda: now)
    good = tokens.issue("put", "a:b/c", ttl_s=10)
    assert tokens.subject("put", good) == "a:b/c"
    for bad in (good[:-1], good.replace("a:b", "a:c"), "", ":", "put:x:1:", "é" * 70, good + "0"):
        with pytest.raises(Unauthorized, match="Invalid upload token"):
            tokens.subject("put", bad)
    now = 1011.0
    with pytest.raises(Unauthorized, match="Expired"):
        tokens.subject("put", good)
