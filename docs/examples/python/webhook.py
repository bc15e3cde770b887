"""Submit, hang up, and be told: `python webhook.py woman.jpg "A woman is playing a violin."`

The server posts the result to `http://127.0.0.1:PORT/` here; the signature is checked before a word of it is believed.
Needs `pip install fal-client cryptography` and `fal_plain_http.py` beside this file; HUNYUAN_URL and FAL_KEY as in
`subscribe.py`. A server calls a private address only if its setting `allow_private_networks` lists it, as the demo's
does for the own machine.
"""

import base64
import hashlib
import json
import os
import queue
import sys
import threading
import time
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import fal_client
import httpx
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from fal_plain_http import use_server

SERVER = os.environ.get("HUNYUAN_URL", "http://127.0.0.1:8000")
LIMIT_S = 7200
LONGEST_BODY = 1_000_000
TOLERANCE_S = 300.0


def public_keys(server: str) -> list[Ed25519PublicKey]:
    """The keys this server signs with; they may be kept for a day."""
    answer = httpx.get(f"{server}/.well-known/jwks.json").raise_for_status()
    return [
        Ed25519PublicKey.from_public_bytes(base64.urlsafe_b64decode(key["x"] + "=" * (-len(key["x"]) % 4)))
        for key in answer.json()["keys"]
    ]


def is_genuine(headers: Message, body: bytes, keys: list[Ed25519PublicKey]) -> bool:
    """Whether one of `keys` has signed exactly this body, within the last five minutes."""
    names = ("Request-Id", "User-Id", "Timestamp", "Signature")
    signed = [headers.get(f"X-Fal-Webhook-{name}", "") for name in names]
    *fields, signature = signed
    message = "\n".join([*fields, hashlib.sha256(body).hexdigest()]).encode()
    try:
        if abs(time.time() - int(fields[2])) > TOLERANCE_S:
            return False
        given = bytes.fromhex(signature)
    except ValueError:
        return False
    return any(_verifies(key, given, message) for key in keys)


def _verifies(key: Ed25519PublicKey, signature: bytes, message: bytes) -> bool:
    try:
        key.verify(signature, message)
    except InvalidSignature:
        return False
    return True


class Receiver(ThreadingHTTPServer):
    """Listens on a free port and puts what is genuine into `results`. The same result may come twice."""

    def __init__(self, keys: list[Ed25519PublicKey]) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.keys = keys
        self.results: queue.Queue[dict[str, Any]] = queue.Queue()
        self.url = f"http://127.0.0.1:{self.server_port}/"
        threading.Thread(target=self.serve_forever, daemon=True).start()


class _Handler(BaseHTTPRequestHandler):
    server: Receiver

    def do_POST(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        body = self.rfile.read(min(length, LONGEST_BODY))
        genuine = length <= LONGEST_BODY and is_genuine(self.headers, body, self.server.keys)
        self.send_response(204 if genuine else 403)  # only a 2xx counts as delivered, anything else is tried again
        self.end_headers()
        if genuine:
            self.server.results.put(json.loads(body))

    def log_message(self, *_: object) -> None:
        """No line for each call."""


def main(photo: Path, prompt: str) -> None:
    """Print the URL of the video, or why there is none."""
    use_server(SERVER)
    with Receiver(public_keys(SERVER)) as receiver:
        arguments = {"prompt": prompt, "image_url": fal_client.encode_file(photo)}
        handle = fal_client.submit("fal-ai/hunyuan-custom", arguments=arguments, webhook_url=receiver.url)
        print(f"Request {handle.request_id} will be reported to {receiver.url}")
        try:
            while (result := receiver.results.get(timeout=LIMIT_S))["request_id"] != handle.request_id:
                pass  # an earlier run's, delivered late
        except queue.Empty:
            sys.exit(f"Nothing came within {LIMIT_S} s: may the server call {receiver.url}? (allow_private_networks)")
        finally:
            receiver.shutdown()
    if result["status"] != "OK":
        sys.exit(f"{result['error']}: {json.dumps(result['payload'])}")
    print(result["payload"]["video"]["url"])


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
