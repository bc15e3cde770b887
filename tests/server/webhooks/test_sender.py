"""Webhooks: delivered, signed, retried, never followed; verified as fal's documentation tells receivers to."""

import base64
import contextlib
import hashlib
import json
import select
import socket
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import quote

import pytest
from nacl.encoding import HexEncoder
from nacl.exceptions import BadSignatureError
from nacl.signing import VerifyKey
from typer.testing import CliRunner

from server.cli.main import app
from server.db.connection import create_engine
from server.settings import WebhookSettings
from server.webhooks.outbox import WebhookOutbox
from server.webhooks.sender import pause_s, retry_after_s
from server.webhooks.signature import WebhookSigner
from tests.harness.keyed import create_key, use_key
from tests.harness.live_server import APP, SHORT_LIMITS, Server, example, until


@dataclass
class Receiver:
    """Answers as the path says, and remembers what came."""

    calls: list[tuple[str, dict[str, str], bytes]] = field(default_factory=list)
    url: str = ""

    def of(self, path: str) -> list[tuple[str, dict[str, str], bytes]]:
        return [call for call in self.calls if call[0].startswith(path)]

    def answer(self, path: str) -> int:
        """`/500-500-200/x`: the status of each attempt, the last one for all that follow."""
        statuses = path.split("/")[1].split("-")
        return int(statuses[min(len(self.of(path)), len(statuses)) - 1])


@pytest.fixture(scope="module")
def receiver() -> Iterator[Receiver]:
    received = Receiver()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            received.calls.append((self.path, dict(self.headers.items()), body))
            if self.path.startswith("/0/"):
                time.sleep(3)
            status = received.answer(self.path) or 200
            self.send_response(status)
            if status in range(300, 400):
                self.send_header("Location", f"{received.url}/200/followed")
            if status == 503:
                self.send_header("Retry-After", "3600")
            self.send_header("Content-Length", "2")
            self.end_headers()
            self.wfile.write(b"ok")

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        received.url = f"http://127.0.0.1:{http.server_address[1]}"
        threading.Thread(target=http.serve_forever, daemon=True).start()
        yield received
        http.shutdown()


def submit(server: Server, webhook: str, body: dict[str, Any] | None = None) -> str:
    answer = server.http.post(f"/queue/{APP}?fal_webhook={quote(webhook, safe='')}", json=body or example())
    assert answer.status_code == 200, answer.text
    return str(answer.json()["request_id"])


def delivered(receiver: Receiver, path: str, times: int = 1) -> dict[str, Any]:
    until(lambda: len(receiver.of(path)) >= times)
    return dict(json.loads(receiver.of(path)[-1][2]))


def state_of(server: Server, request_id: str) -> str:
    database = create_engine(f"sqlite:///{server.data_dir / 'hunyuan-custom.sqlite'}")
    found = [one for one in WebhookOutbox(database).all() if one.request_id == request_id]
    database.dispose()
    return f"{found[0].state} attempts {found[0].attempts} {found[0].outcome}" if found else ""


@pytest.mark.parametrize(("before", "after"), [("", " "), ("\n", ""), (" ", "\r\n")])
def test_whitespace_around_a_webhook_is_no_part_of_it(
    impatient: Server, receiver: Receiver, before: str, after: str
) -> None:
    path = f"/200/{len(receiver.calls)}"
    request_id = submit(impatient, f"{before}{receiver.url}{path}{after}", example(prompt=""))
    assert delivered(receiver, path)["request_id"] == request_id
    assert receiver.of(path)[0][0] == path


@pytest.mark.parametrize("webhook", ["", " "])
def test_an_empty_webhook_is_none(impatient: Server, webhook: str) -> None:
    request_id = submit(impatient, webhook, example(num_inference_steps=10))
    assert impatient.finish(request_id).status_code == 200
    assert not state_of(impatient, request_id)


def test_a_success_is_posted_once_with_the_result(impatient: Server, receiver: Receiver) -> None:
    request_id = submit(impatient, f"{receiver.url}/200/ok?x=1&y=2", example(seed=5))
    body = delivered(receiver, "/200/ok")
    result = impatient.result(request_id).json()
    assert body == {"request_id": request_id, "gateway_request_id": request_id, "status": "OK", "payload": result}
    path, headers, _ = receiver.of("/200/ok")[0]
    assert path == "/200/ok?x=1&y=2"
    assert headers["Content-Type"] == "application/json"
    assert "Authorization" not in headers
    until(lambda: "delivered" in state_of(impatient, request_id))


@pytest.mark.parametrize(
    ("body", "status", "kind"),
    [
        (example(num_frames=5), 422, "greater_than_equal"),
        (example(image_url="data:image/png;base64,AAAA"), 422, "image_load_error"),
        (example(prompt="RAISES"), 500, "internal_server_error"),
        (example(prompt="FLAGS frames"), 422, "content_policy_violation"),
    ],
)
def test_a_failure_is_posted_with_its_body(
    impatient: Server, receiver: Receiver, body: dict[str, Any], status: int, kind: str
) -> None:
    request_id = submit(impatient, f"{receiver.url}/200/{kind}", body)
    posted = delivered(receiver, f"/200/{kind}")
    assert (posted["status"], posted["error"]) == ("ERROR", f"Invalid status code: {status}")
    assert posted["payload"] == impatient.result(request_id).json()
    assert posted["payload"]["detail"][0]["type"] == kind


@pytest.mark.parametrize("running", [True, False])
def test_a_cancelled_request_posts_one_error(impatient: Server, receiver: Receiver, running: bool) -> None:
    blocker = impatient.submit(example(prompt="WORKS_SLOWLY")) if not running else ""
    request_id = submit(impatient, f"{receiver.url}/200/cancel{running}", example(prompt="WORKS_SLOWLY"))
    if running:
        impatient.until_running(request_id)
    impatient.cancel(request_id)
    posted = delivered(receiver, f"/200/cancel{running}")
    assert (posted["status"], posted["error"]) == ("ERROR", "Invalid status code: 499")
    assert posted["payload"]["error_type"] == "client_cancelled"
    if blocker:
        impatient.cancel(blocker)
        impatient.finish(blocker)
    impatient.finish(impatient.submit())
    assert len(receiver.of(f"/200/cancel{running}")) == 1


def verify(headers: dict[str, str], body: bytes, keys: list[dict[str, str]], *, now: float) -> bool:
    """The steps of fal's documented verifier, with the library it uses."""
    timestamp = int(headers["X-Fal-Webhook-Timestamp"])
    if abs(now - timestamp) > 300:
        return False
    message = "\n".join(
        [
            headers["X-Fal-Webhook-Request-Id"],
            headers["X-Fal-Webhook-User-Id"],
            headers["X-Fal-Webhook-Timestamp"],
            hashlib.sha256(body).hexdigest(),
        ]
    ).encode("utf-8")
    signature = bytes.fromhex(headers["X-Fal-Webhook-Signature"])
    for key in keys:
        public = base64.urlsafe_b64decode(key.get("x", ""))
        try:
            VerifyKey(public.hex(), encoder=HexEncoder).verify(message, signature)
        except BadSignatureError:
            continue
        return True
    return False


@pytest.mark.parametrize("path", ["/.well-known/jwks.json", "/rest/.well-known/jwks.json"])
def test_fals_documented_verifier_accepts_what_we_post(impatient: Server, receiver: Receiver, path: str) -> None:
    hook = f"/200/signed{len(path)}"
    request_id = submit(impatient, f"{receiver.url}{hook}", example(prompt=""))
    delivered(receiver, hook)
    _, headers, body = receiver.of(hook)[0]
    keys = impatient.http.get(path).json()["keys"]
    assert len(keys[0]["x"]) == 44, "padded, or fal's verifier fails"
    assert verify(headers, body, keys, now=time.time())
    assert headers["X-Fal-Webhook-Request-Id"] == request_id
    for changed in (
        {"X-Fal-Webhook-Request-Id": "other"},
        {"X-Fal-Webhook-User-Id": "other"},
        {"X-Fal-Webhook-Timestamp": str(int(headers["X-Fal-Webhook-Timestamp"]) - 1)},
    ):
        assert not verify(headers | changed, body, keys, now=time.time())
    assert not verify(headers, body + b" ", keys, now=time.time())
    assert not verify(headers, body, keys, now=time.time() + 301)


def test_a_receiver_of_standard_webhooks_can_verify_too(impatient: Server, receiver: Receiver) -> None:
    submit(impatient, f"{receiver.url}/500-200/standard", example(prompt=""))
    delivered(receiver, "/500-200/standard", times=2)
    (key,) = impatient.http.get("/.well-known/jwks.json").json()["keys"]
    ids = set()
    for _, headers, body in receiver.of("/500-200/standard"):
        ids.add(headers["webhook-id"])
        assert abs(int(headers["webhook-timestamp"]) - time.time()) < 300
        version, _, signature = headers["webhook-signature"].partition(",")
        assert version == "v1a"
        signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
        public = VerifyKey(base64.urlsafe_b64decode(key["x"]))
        public.verify(signed, base64.b64decode(signature))
        with pytest.raises(BadSignatureError):
            public.verify(signed + b" ", base64.b64decode(signature))
    (only,) = ids
    assert "." not in only


def test_every_attempt_is_signed_anew() -> None:
    now = 1_000_000.0
    signer = WebhookSigner(b"s" * 32, clock=lambda: now)
    first = signer.headers(b"{}", request_id="r", owner="o")
    now += 60
    second = signer.headers(b"{}", request_id="r", owner="o")
    assert first["X-Fal-Webhook-Signature"] != second["X-Fal-Webhook-Signature"]
    assert first["webhook-signature"] != second["webhook-signature"]
    assert verify(second, b"{}", signer.key_set()["keys"], now=now)


@pytest.mark.parametrize("statuses", ["500-200", "404-503-200", "401-429-400-204"])
def test_failed_deliveries_are_repeated_until_one_succeeds(
    impatient: Server, receiver: Receiver, statuses: str
) -> None:
    request_id = submit(impatient, f"{receiver.url}/{statuses}/x", example(prompt=""))
    until(lambda: "delivered" in state_of(impatient, request_id))
    assert len(receiver.of(f"/{statuses}/x")) == len(statuses.split("-"))
    bodies = {call[2] for call in receiver.of(f"/{statuses}/x")}
    assert len(bodies) == 1


@pytest.mark.parametrize("status", [301, 302, 307, 410])
def test_a_redirect_is_final_and_not_followed(impatient: Server, receiver: Receiver, status: int) -> None:
    request_id = submit(impatient, f"{receiver.url}/{status}/x", example(prompt=""))
    until(lambda: "failed" in state_of(impatient, request_id))
    assert len(receiver.of(f"/{status}/x")) == 1
    assert not receiver.of("/200/followed")


def test_a_receiver_that_never_accepts_is_given_up_and_can_be_tried_by_hand(
    impatient: Server, receiver: Receiver
) -> None:
    request_id = submit(impatient, f"{receiver.url}/500-500-500-500-200/dead", example(prompt=""))
    until(lambda: "failed" in state_of(impatient, request_id))
    assert len(receiver.of("/500-500-500-500-200/dead")) == 4
    assert "HTTP 500" in state_of(impatient, request_id)
    redeliver = CliRunner().invoke(app, ["webhooks", "redeliver", request_id, "--data-dir", str(impatient.data_dir)])
    assert redeliver.exit_code == 0
    until(lambda: "delivered" in state_of(impatient, request_id))
    listed = CliRunner().invoke(
        app, ["webhooks", "list", "--state", "delivered", "--data-dir", str(impatient.data_dir)]
    )
    assert request_id in listed.stdout
    unknown = CliRunner().invoke(app, ["webhooks", "redeliver", "nothing", "--data-dir", str(impatient.data_dir)])
    assert "no such request" in str(unknown.exception)


def test_the_default_schedule_is_ten_attempts_over_an_hour() -> None:
    delays = WebhookSettings().retry_delays_s
    assert delays == (5, 15, 30, 60, 120, 5 * 60, 10 * 60, 20 * 60, 40 * 60)


def test_pauses_vary_within_their_bounds() -> None:
    settings = WebhookSettings()
    for attempts, delay in enumerate(settings.retry_delays_s):
        drawn = [pause_s(settings, attempts, retry_after_s=0) for _ in range(300)]
        assert 0.8 * delay <= min(drawn) < 0.9 * delay
        assert 1.1 * delay < max(drawn) <= 1.2 * delay
    assert pause_s(settings, 0, retry_after_s=90) == 90
    assert pause_s(settings, 5, retry_after_s=1) >= 0.8 * 300, "it lengthens, it never shortens"
    assert pause_s(settings, 0, retry_after_s=10**9) == 40 * 60, "nor for ever"


@pytest.mark.parametrize(
    ("value", "seconds"),
    [("120", 120), ("Wed, 21 Oct 2015 07:28:00 GMT", 0), ("-5", 0), ("soon", 0), ("", 0), ("9" * 40, 999_999_999),
     ("²", 0)],
)  # fmt: skip
def test_retry_after_is_seconds_or_a_date(value: str, seconds: float) -> None:
    assert retry_after_s([(b"Retry-After", value.encode("latin-1"))]) == seconds
    in_a_minute = formatdate(time.time() + 60, usegmt=True).encode()
    assert 55 < retry_after_s([(b"Date", b"x"), (b"retry-after", in_a_minute)]) <= 60


def test_a_receiver_that_asks_for_a_rest_gets_it(impatient: Server, receiver: Receiver) -> None:
    """The longest pause of this server's schedule is 0.1 s, which bounds what a receiver may ask for."""
    request_id = submit(impatient, f"{receiver.url}/503-200/rest", example(prompt=""))
    until(lambda: "delivered" in state_of(impatient, request_id))
    assert len(receiver.of("/503-200/rest")) == 2


def test_twenty_slow_receivers_delay_only_their_own(start_server: Callable[..., Server], receiver: Receiver) -> None:
    server = start_server(webhooks__timeout_s=60, webhooks__poll_s=0.05)
    alice, bob = create_key(server, "alice"), create_key(server, "bob")
    with socket.create_server(("127.0.0.1", 0), backlog=64) as tarpit:  # takes connections and says nothing
        use_key(server, alice)
        for number in range(20):
            submit(server, f"http://127.0.0.1:{tarpit.getsockname()[1]}/{number}", example(prompt=""))
        until(lambda: _is_called(tarpit))
        submit(server, f"{receiver.url}/200/alice-elsewhere", example(prompt=""))
        use_key(server, bob)
        submit(server, f"{receiver.url}/200/bob", example(prompt=""))
        submit(server, f"http://127.0.0.1:{tarpit.getsockname()[1]}/bob", example(prompt=""))
        delivered(receiver, "/200/alice-elsewhere")
        delivered(receiver, "/200/bob")


def _is_called(tarpit: socket.socket) -> bool:
    return bool(select.select([tarpit], [], [], 0)[0])


@pytest.mark.parametrize("path", ["/0/slow", None])
def test_a_slow_or_dead_receiver_delays_no_other(impatient: Server, receiver: Receiver, path: str | None) -> None:
    url = f"{receiver.url}{path}" if path else "http://127.0.0.1:9/dead"
    ids = [submit(impatient, url, example(prompt="")) for _ in range(3)]
    started = time.monotonic()
    fine = submit(impatient, f"{receiver.url}/200/beside{path}", example(prompt=""))
    delivered(receiver, f"/200/beside{path}")
    assert time.monotonic() - started < 30
    assert impatient.finish(impatient.submit()).status_code == 200
    until(lambda: all("failed" in state_of(impatient, one) for one in ids))
    until(lambda: "delivered" in state_of(impatient, fine))


def test_the_schedule_survives_a_restart(start_server: Callable[..., Server], receiver: Receiver) -> None:
    slow = SHORT_LIMITS | {"webhooks__retry_delays_s": "[600.0, 0.1]"}
    first = start_server(**slow)
    request_id = submit(first, f"{receiver.url}/500-200/restart", example(prompt=""))
    until(lambda: "attempts 1" in state_of(first, request_id))
    first.stop()
    assert "pending" in state_of(first, request_id)
    with contextlib.closing(sqlite3.connect(first.data_dir / "hunyuan-custom.sqlite")) as database, database:
        database.execute("UPDATE webhook SET next_at = next_at - 599")  # ten minutes later
    second = start_server(**slow)
    until(lambda: "delivered" in state_of(second, request_id))
    assert len(receiver.of("/500-200/restart")) == 2
