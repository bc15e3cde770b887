"""The signature fal's receivers check, and the key set they check it with.

ED25519 over `request_id\\nuser_id\\ntimestamp\\nsha256(body)`, hex, in four headers; made anew for every attempt, since
receivers refuse a timestamp that is five minutes old. The receivers must look for the keys here and not at fal.
"""

import base64
import hashlib
import time
from collections.abc import Callable

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey


class WebhookSigner:
    """Signs with the installation's own key; `seed` has 32 bytes."""

    def __init__(self, seed: bytes, clock: Callable[[], float] = time.time) -> None:
        self._key = Ed25519PrivateKey.from_private_bytes(seed)
        self._clock = clock

    def headers(self, body: bytes, *, request_id: str, owner: str) -> dict[str, str]:
        """fal's four headers for one attempt."""
        timestamp = str(int(self._clock()))
        message = "\n".join((request_id, owner, timestamp, hashlib.sha256(body).hexdigest()))
        return {
            "X-Fal-Webhook-Request-Id": request_id,
            "X-Fal-Webhook-User-Id": owner,
            "X-Fal-Webhook-Timestamp": timestamp,
            "X-Fal-Webhook-Signature": self._key.sign(message.encode()).hex(),
        }

    def key_set(self) -> dict[str, list[dict[str, str]]]:
        """The JWKS. `x` keeps its padding, as at fal: the verifier in fal's documentation fails without it."""
        public = self._key.public_key().public_bytes_raw()
        key = {"kty": "OKP", "crv": "Ed25519", "use": "sig", "alg": "EdDSA"}
        key |= {"kid": hashlib.sha256(public).hexdigest()[:16], "x": base64.urlsafe_b64encode(public).decode()}
        return {"keys": [key]}
