"""The signatures that receivers check, and the key set they check them with.

fal's: ED25519 over `request_id\\nuser_id\\ntimestamp\\nsha256(body)`, hex, in four headers. And that of Standard
Webhooks in its asymmetric form (`v1a`): the same key over `id.timestamp.body`, in three. Both are made anew for every
attempt, since receivers refuse a timestamp that is five minutes old. They must look for the keys here, not at fal.
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
        """The headers of one attempt; ids stay the same, so that receivers know a repetition."""
        timestamp = str(int(self._clock()))
        message = "\n".join((request_id, owner, timestamp, hashlib.sha256(body).hexdigest()))
        return {
            "X-Fal-Webhook-Request-Id": request_id,
            "X-Fal-Webhook-User-Id": owner,
            "X-Fal-Webhook-Timestamp": timestamp,
            "X-Fal-Webhook-Signature": self._key.sign(message.encode()).hex(),
            "webhook-id": request_id,
            "webhook-timestamp": timestamp,
            "webhook-signature": f"v1a,{self._standard(f'{request_id}.{timestamp}.'.encode() + body)}",
        }

    def _standard(self, content: bytes) -> str:
        return base64.b64encode(self._key.sign(content)).decode()

    def key_set(self) -> dict[str, list[dict[str, str]]]:
        """The JWKS. `x` keeps its padding, as at fal: the verifier in fal's documentation fails without it."""
        public = self._key.public_key().public_bytes_raw()
        key = {"kty": "OKP", "crv": "Ed25519", "use": "sig", "alg": "EdDSA"}
        key |= {"kid": hashlib.sha256(public).hexdigest()[:16], "x": base64.urlsafe_b64encode(public).decode()}
        return {"keys": [key]}
