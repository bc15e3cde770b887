"""Secrets of this installation, and the tokens that uploads carry instead of a key."""

import hashlib
import hmac
import secrets
import time
from collections.abc import Callable
from typing import Final

import sqlalchemy as sa

from server.db.tables import secret_table
from server.errors import Unauthorized

UPLOADS: Final = "uploads"
WEBHOOKS: Final = "webhooks"


def load_secret(database: sa.Engine, name: str) -> bytes:
    """The 32 bytes of that name, drawn at the first call; processes that start together agree on one."""
    find = sa.select(secret_table.c.value).where(secret_table.c.name == name)
    with database.connect() as connection:
        known = connection.execute(find).scalar_one_or_none()
    if known is None:
        try:
            with database.begin() as transaction:
                transaction.execute(secret_table.insert().values(name=name, value=secrets.token_hex(32)))
        except sa.exc.IntegrityError:
            pass  # another process was first
        with database.connect() as connection:
            known = connection.execute(find).scalar_one()
    return bytes.fromhex(known)


class Tokens:
    """Signed statements `purpose.subject.expiry.signature`: nothing is stored, every API process can check them."""

    def __init__(self, secret: bytes, clock: Callable[[], float] = time.time) -> None:
        self._secret = secret
        self._clock = clock

    def issue(self, purpose: str, subject: str, *, ttl_s: float) -> str:
        """A token that says what its bearer may do, until it expires. `purpose` may hold no colon."""
        claim = f"{purpose}:{subject}:{int(self._clock() + ttl_s)}"
        return f"{claim}:{self._sign(claim)}"

    def subject(self, purpose: str, token: str) -> str:
        """What the token was issued for.

        Raises:
            Unauthorized: forged, expired, or issued for another purpose.
        """
        claim, _, signature = token.rpartition(":")
        if not hmac.compare_digest(signature.encode("utf-8", "replace"), self._sign(claim).encode()):
            raise Unauthorized("Invalid upload token")
        said, _, rest = claim.partition(":")
        subject, _, expiry = rest.rpartition(":")
        if said != purpose or int(expiry) < self._clock():
            raise Unauthorized("Expired upload token")
        return subject

    def _sign(self, claim: str) -> str:
        return hmac.new(self._secret, claim.encode("utf-8", "replace"), hashlib.sha256).hexdigest()
