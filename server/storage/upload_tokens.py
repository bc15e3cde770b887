"""Tokens that stand for a key at an upload: nothing is stored, and every API process can check them."""

import hashlib
import time
from collections.abc import Callable

from itsdangerous import BadData, URLSafeSerializer

from server.errors import Unauthorized


class UploadTokens:
    """Signed statements of a purpose, a subject and an expiry.

    The expiry is signed, not the time of issue: the clocks of several machines never agree to the second, and a token
    must be good at once on all of them.
    """

    def __init__(self, secret: bytes, clock: Callable[[], float] = time.time) -> None:
        self._secret = secret
        self._clock = clock

    def issue(self, purpose: str, subject: str, *, ttl_s: float) -> str:
        """A token that permits its bearer one purpose until it expires."""
        return str(self._serializer(purpose).dumps([subject, self._clock() + ttl_s]))

    def subject(self, purpose: str, token: str) -> str:
        """What the token was issued for.

        Raises:
            Unauthorized: forged, expired, or issued for another purpose.
        """
        try:
            subject, expires_at = self._serializer(purpose).loads(token)
        except BadData:
            raise Unauthorized("Invalid upload token") from None
        if expires_at < self._clock():
            raise Unauthorized("Expired upload token")
        return str(subject)

    def _serializer(self, purpose: str) -> URLSafeSerializer:
        signing = {"key_derivation": "hmac", "digest_method": hashlib.sha256}
        return URLSafeSerializer(self._secret, salt=purpose, signer_kwargs=signing)
